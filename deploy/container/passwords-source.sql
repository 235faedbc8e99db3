alter role cdc_audit password 'source';
