package writebuffer

import (
	"context"
	"slices"
	"sync"
)

// rounds lets one caller at a time run a commit round. Callers that come meanwhile wait
// for its end, or for the end of their own ctx. It keeps the channels on which they
// wait: it allocates only when more wait at a time than ever before.
type rounds struct {
	sync.Mutex
	// All below is guarded by it.
	running bool
	waiting []chan struct{} // each is told once, at the end of the round
	free    []chan struct{}
}

// waitLocked waits for the end of the round that runs, or of ctx: then it returns
// ctx.Err(), and the round goes on. The mutex is held, and released meanwhile.
func (r *rounds) waitLocked(ctx context.Context) (err error) {
	var told chan struct{}
	if n := len(r.free); n > 0 {
		told, r.free = r.free[n-1], r.free[:n-1]
	} else {
		told = make(chan struct{}, 1)
	}
	r.waiting = append(r.waiting, told)
	r.Unlock()
	select {
	case <-told:
	case <-ctx.Done():
		err = ctx.Err()
	}
	r.Lock()
	if err != nil {
		if at := slices.Index(r.waiting, told); at >= 0 {
			r.waiting = slices.Delete(r.waiting, at, at+1)
		} else { // the round has ended at the same moment: its result counts
			<-told
			err = nil
		}
	}
	r.free = append(r.free, told)
	return err
}

// tellLocked makes all that wait look again. The mutex is held.
func (r *rounds) tellLocked() {
	for _, told := range r.waiting {
		told <- struct{}{} // there is room for one
	}
	clear(r.waiting)
	r.waiting = r.waiting[:0]
}
