package volumedriver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"openvstorage/volumedriver/registry"

	"github.com/google/uuid"
)

// elsewhere keeps what the table has of other hosts' vDisks: it looks at the registry
// when somebody lists vDisks, or asks for a name that is not known here. Nothing looks
// when nobody asks.
//
// Whoever asks waits for the registry lookMax at most, and then goes by the last look.
// So a registry that does not answer keeps nobody from this host's own vDisks.
type elsewhere struct {
	me         uuid.UUID
	registry   Registry
	table      *table
	background *background
	log        *slog.Logger

	mu      sync.Mutex
	ongoing chan struct{} // closed at the end of the look under way; nil: there is none
	late    bool          // it was waited for in vain
}

// lookMax is how long somebody waits for the registry who asks for other hosts' vDisks.
const lookMax = time.Second

// divide tells this host's records from others. What an older release wrote names no
// host, and is the founder's: this host's, too, if no host has entered the registry yet.
// What was released is nobody's.
func (e *elsewhere) divide(hosts []registry.Entry, records []registry.Record) (mine, others []registry.Record) {
	founder := e.me
	for _, h := range hosts {
		if h.Founder {
			founder = h.Host
			break
		}
		founder = uuid.Nil
	}
	for _, r := range records {
		if r.Host == uuid.Nil {
			r.Host = founder
			if founder == e.me && !r.Released {
				r.Host = uuid.Nil // as it is written: changes compare it
				mine = append(mine, r)
				continue
			}
		}
		if r.Host == e.me && !r.Released {
			mine = append(mine, r)
		} else {
			others = append(others, r)
		}
	}
	return mine, others
}

// named returns the vDisk with the name. If it is not known here, the registry is looked
// at: another host may have it (ErrElsewhere).
func (e *elsewhere) named(ctx context.Context, name string) (*Volume, error) {
	v, err := e.table.named(name)
	if !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrElsewhere) {
		return v, err
	}
	e.look(ctx)
	return e.table.named(name)
}

// look brings the table up to date. It returns when a look has ended that began after the
// call, when ctx ends, or after lookMax.
func (e *elsewhere) look(ctx context.Context) {
	timer := time.NewTimer(lookMax)
	defer timer.Stop()
	for mine := false; !mine; {
		done, began := e.begin()
		if done == nil {
			return
		}
		mine = began
		select {
		case <-done:
		case <-ctx.Done():
			return
		case <-timer.C:
			e.mu.Lock()
			e.late = e.ongoing != nil
			e.mu.Unlock()
			return
		}
	}
}

// begin begins a look unless one is under way, and returns what is closed at its end: nil
// if it is not worth waiting for.
func (e *elsewhere) begin() (done chan struct{}, began bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.late || e.background.living().Err() != nil {
		return nil, false
	}
	if e.ongoing != nil {
		return e.ongoing, false
	}
	done = make(chan struct{})
	e.ongoing = done
	e.background.Go(func() {
		ctx, cancel := context.WithTimeout(e.background.living(), settleMax)
		defer cancel()
		if err := e.lookNow(ctx); err != nil && e.background.living().Err() == nil {
			e.log.Warn("other hosts' vDisks are shown as they were: the registry has not answered", "err", err)
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		e.ongoing, e.late = nil, false
		close(done)
	})
	return done, true
}

func (e *elsewhere) lookNow(ctx context.Context) error {
	hosts, err := e.registry.Hosts(ctx)
	if err != nil {
		return err
	}
	alone := true
	for _, h := range hosts {
		alone = alone && h.Host == e.me
	}
	if alone && len(e.table.foreigners()) == 0 {
		return nil
	}
	records, err := e.registry.List(ctx)
	if err != nil {
		return err
	}
	_, others := e.divide(hosts, records)
	for _, r := range others {
		if v := e.table.byID(r.ID); v != nil && r.Epoch > v.epoch {
			v.halt(elsewhereError(r)) // it was taken over since it was claimed here (P4)
		}
	}
	e.table.setForeign(others)
	return nil
}

// elsewhereError is the error for whoever wants a vDisk that this host does not have.
func elsewhereError(r registry.Record) error {
	return fmt.Errorf("vDisk %q: %w: %s", r.Name, ErrElsewhere, whereabouts(r))
}

// whereabouts says which host has a vDisk.
func whereabouts(r registry.Record) string {
	who := r.Host.String()
	if r.Owner != "" {
		who += " (" + r.Owner + ")"
	}
	if r.Released {
		return fmt.Sprintf("no host has it: host %s released it at epoch %d", who, r.Epoch)
	}
	return fmt.Sprintf("on host %s since epoch %d: ask that host", who, r.Epoch)
}

// foreignInfo is what is told of another host's vDisk.
func foreignInfo(r registry.Record) Info {
	i := Info{Name: r.Name, ID: r.ID, State: StateElsewhere, Reason: whereabouts(r), Epoch: r.Epoch, Host: r.Host, Created: r.Created}
	if r.Deleting {
		i.Reason = "being deleted " + i.Reason
	}
	if r.Parent != uuid.Nil {
		i.Parent = r.Parent.String()
	}
	return i
}
