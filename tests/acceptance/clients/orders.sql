-- What the example applications write to. "who" is the oracle: the user for whom the application believes to act when it writes
-- the row; "changes" counts what it did to the row, so the trail must hold as many rows of it.
create table public.orders (
    id bigint generated always as identity primary key,
    app text not null,
    who text not null,
    changes integer not null default 1,
    note text
);
