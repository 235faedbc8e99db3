"""Example applications, one for each integration of ``cdc_audit.client``; ``test_clients.py`` runs each as a process."""
