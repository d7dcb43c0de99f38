// Package export_bank_ledger_statements has the transfers of an account, from PostgreSQL.
//
// pgx is used as anywhere else, with the two functions that reach the network: a pool that connects when it is first
// needed. It stays with the instance from one call to the next, and has one connection, since an instance
// has one call at a time.
package export_bank_ledger_statements

import (
	"context"
	"crypto/x509"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"wasmbay/sockets"
	. "wit_component/bank_ledger_statements"
	"wit_component/bank_ledger_types"

	. "go.bytecodealliance.org/pkg/wit/types"
)

// pool is made at the first call, for what DATABASE_URL names. DATABASE_CA is the authority of the server's certificate as
// PEM: there are none of the system here.
var pool = sync.OnceValues(func() (*pgxpool.Pool, error) {
	url := os.Getenv("DATABASE_URL")
	if url == "" {
		return nil, errors.New("the environment has no DATABASE_URL")
	}
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	if authority := os.Getenv("DATABASE_CA"); authority != "" && config.ConnConfig.TLSConfig != nil {
		config.ConnConfig.TLSConfig.RootCAs = x509.NewCertPool()
		config.ConnConfig.TLSConfig.RootCAs.AppendCertsFromPEM([]byte(authority))
	}
	config.ConnConfig.LookupFunc = sockets.LookupHost
	config.ConnConfig.DialFunc = sockets.DialContext
	config.MaxConns = 1
	// One that the server has closed meanwhile is replaced, and the call does not notice.
	config.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return true }
	return pgxpool.NewWithConfig(context.Background(), config)
})

const query = `
	select id, at, case sender when $1 then receiver else sender end,
		case sender when $1 then -cents else cents end
	from transfer where $1 in (sender, receiver) order by id desc limit $2`

// Latest returns the last transfers of an account, the latest first.
func Latest(name string, limit uint32) Result[[]Entry, LedgerError] {
	// Less than the service's `timeout`, so that callers get the reason.
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	entries, err := latest(ctx, name, limit)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return Err[[]Entry](bank_ledger_types.MakeLedgerErrorUnknownAccount(name))
	case err != nil:
		return Err[[]Entry](bank_ledger_types.MakeLedgerErrorUnavailable(err.Error()))
	}
	return Ok[[]Entry, LedgerError](entries)
}

func latest(ctx context.Context, name string, limit uint32) ([]Entry, error) {
	pool, err := pool()
	if err != nil {
		return nil, err
	}
	var cents int64
	if err := pool.QueryRow(ctx, "select cents from account where name = $1", name).Scan(&cents); err != nil {
		return nil, err
	}
	rows, err := pool.Query(ctx, query, name, int64(limit))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Entry, error) {
		var entry Entry
		var at time.Time
		err := row.Scan(&entry.Id, &at, &entry.Other, &entry.Cents)
		entry.At = at.UTC().Format(time.RFC3339)
		return entry, err
	})
}
