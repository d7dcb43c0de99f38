package sockets

import (
	"runtime"
	"slices"
	"sync"
	"time"

	clock "wasmbay/imports/wasi_clocks_monotonic_clock"
	"wasmbay/imports/wasi_io_poll"
)

// The longest for which the whole program stands still, in case that a timer of Go is due, or that a goroutine can go on
// which did not get its turn.
const tick = 10 * time.Millisecond

// limit is when a wait ends at the latest. Zero is never.
type limit time.Time

var (
	waitingMutex sync.Mutex
	waiting      []*wasi_io_poll.Pollable
)

// wait gives the other goroutines their turn until what is waited for is ready, or `end` has an error. It drops the pollable.
//
// Go's scheduler knows nothing of what the host has for this program. So the program stands still in the host, for
// all that its goroutines wait for at once, when the others have had their turn: the scheduler takes a goroutine that gave its own
// away after those that something has woken.
func wait(on *wasi_io_poll.Pollable, end func() (limit, error)) error {
	defer on.Drop()
	waitingMutex.Lock()
	waiting = append(waiting, on)
	waitingMutex.Unlock()
	defer func() {
		waitingMutex.Lock()
		defer waitingMutex.Unlock()
		place := slices.Index(waiting, on)
		waiting = slices.Delete(waiting, place, place+1)
	}()
	for !on.Ready() {
		limit, err := end()
		if err != nil {
			return err
		}
		// Now and then it takes one out of turn, but not twice.
		runtime.Gosched()
		runtime.Gosched()
		if on.Ready() {
			break
		}
		rest := tick
		if at := time.Time(limit); !at.IsZero() {
			rest = min(rest, max(time.Until(at), 0))
		}
		stand(rest)
	}
	return nil
}

// stand returns when something that is waited for is ready, or the time is over.
func stand(still time.Duration) {
	timer := clock.SubscribeDuration(uint64(still))
	defer timer.Drop()
	waitingMutex.Lock()
	all := append(slices.Clone(waiting), timer)
	waitingMutex.Unlock()
	// Nothing else runs meanwhile, and so none of them is dropped.
	wasi_io_poll.Poll(all)
}
