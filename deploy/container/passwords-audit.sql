alter role cdc_audit_writer password 'audit';
