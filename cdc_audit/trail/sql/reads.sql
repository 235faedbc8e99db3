-- name: record_read
select {schema}.record_read(%(command)s, %(filters)s::jsonb, %(row_count)s)
