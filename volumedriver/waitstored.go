package volumedriver

import (
	"context"
	"fmt"
	"time"
)

// announce lets those that wait for the upload look again.
func (st *storer) announce(err error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.failed = err
	st.stored.Send()
}

// waitStored waits until reached says so, pushing the upload of what is
// written up to seq meanwhile.
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
	st.buf.CloseTLog() // so that the checkpoint has where to be
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
