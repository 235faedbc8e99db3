-- The statements of the demo's shop.

-- name: set_context
select cdc_audit.set_context(%s)

-- name: register
insert into users (name, email, password_hash) values (%s, %s, 'bcrypt$2b$12$' || md5(random()::text)) returning id

-- name: order
insert into orders (user_id, item, total, shipping) values (%s, %s, %s, %s) returning id

-- name: pay
insert into payments (order_id, amount, method) values (%s, %s, %s) returning id

-- name: set_status
update orders set status = %s where id = %s

-- name: change_email
update users set email = %s where id = %s

-- name: deactivate_idle
update users set active = false where id = %s

-- name: carts
insert into orders (user_id, item, total, status)
select %s, 'abandoned cart ' || n, n * 1.10, 'cart' from generate_series(1, %s) as n

-- name: purge_carts
delete from orders where status = 'cart'

-- name: refund_all
delete from payments

-- name: dba_fix
update payments set amount = amount - 100 where id = %s

-- name: count_rows
select (select count(*) from users), (select count(*) from orders), (select count(*) from payments)
