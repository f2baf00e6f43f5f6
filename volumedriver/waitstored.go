package volumedriver

import (
	"context"
	"fmt"
	"time"
)

// announce lets those who wait for the upload look again. err is why the last attempt
// failed, nil if it did not.
func (st *storer) announce(err error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.failed = err
	st.stored.Send()
}

// waitStored waits until reached reports true, and has what is written up to seq uploaded
// at full speed meanwhile. each, if not nil, is called again and again while it waits.
func (st *storer) waitStored(ctx context.Context, seq uint64, reached func() bool, each func()) error {
	st.urgent.Add(1)
	defer st.urgent.Add(-1)
	for {
		stored := st.stored.Next()
		if reached() {
			return nil
		}
		if err := st.Err(); err != nil {
			return err
		}
		if each != nil {
			each()
		}
		st.buf.CloseTLogOf(seq)
		st.ring()
		select {
		case <-stored:
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			st.mu.Lock()
			defer st.mu.Unlock()
			if st.failed != nil {
				return fmt.Errorf("%w: storing fails: %w", ctx.Err(), earlier{st.failed})
			}
			return ctx.Err()
		}
	}
}

// syncTo returns when the catalog has everything up to seq. progress, if not nil, hears of
// bytes done and in total.
func (st *storer) syncTo(ctx context.Context, seq uint64, progress func(done, total int64)) error {
	total, _ := st.buf.Backlog()
	err := st.waitStored(ctx, seq, func() bool { return st.cat.storedSeq() >= seq }, func() {
		if progress != nil {
			left, _ := st.buf.Backlog()
			progress(max(total-left, 0), total)
		}
	})
	if err == nil && progress != nil {
		progress(total, total)
	}
	return err
}

// checkpointTo returns when a checkpoint covers seq.
func (st *storer) checkpointTo(ctx context.Context, seq uint64) error {
	if st.cat.checkpointSeq() >= seq {
		return nil
	}
	st.checkpoints.want()
	st.buf.CloseTLog() // a checkpoint is frozen where a TLog closes
	return st.waitStored(ctx, seq, func() bool {
		if st.cat.checkpointSeq() >= seq {
			return true
		}
		if at, _ := st.checkpoints.frozenSeq(); at < seq {
			st.checkpoints.want()
		}
		return false
	}, nil)
}
