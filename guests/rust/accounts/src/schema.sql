-- Instances begin at the same time: one of them does it.
select pg_advisory_xact_lock(5741);

create table if not exists account (
    name text primary key,
    cents bigint not null check (cents >= 0)
);

create table if not exists transfer (
    id bigint generated always as identity primary key,
    at timestamptz not null default now(),
    sender text not null references account,
    receiver text not null references account,
    cents bigint not null check (cents > 0)
);
