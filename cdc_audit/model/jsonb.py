from cdc_audit.decode.jsonb import *  # temporary
from cdc_audit.decode.jsonb import NotJsonbError, canonical
