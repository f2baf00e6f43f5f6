package arakoon

import (
	"context"
	"errors"
	"fmt"

	"openvstorage/arakoon/state"
)

// ImageCalls are calls of a Node about its state as a whole: its changes, its hash, and
// copies of it.
type ImageCalls struct{ node *Node }

// Watch calls fn with what happens to the keys with a prefix, from a revision on; 0: from
// now. Each call has all events of one revision; revisions come in order, and none is left
// out. A call without events says that all up to its revision has been told: one comes when
// the watch has come to what is applied, and others from time to time, so that the caller
// knows where to go on. Only what is applied here, and so committed, is seen. Any member
// serves a watch.
//
// It returns when fn fails, with that error, when ctx ends, or when the node does. It
// returns an *ErrCompacted if the events from there on are not kept any more: they are kept
// in memory, bounded by Options.History, so that is so after a start of the member, and for
// a watcher that is too slow. The caller then reads the keys, AtLeast the revision before
// First, and watches from First on. fn may keep the slices and must not change them.
func (i ImageCalls) Watch(ctx context.Context, prefix []byte, from uint64, fn func(Events) error) error {
	n := i.node
	if err := n.Err(); err != nil {
		return err
	}
	w, err := n.history.Watch(ctx, prefix, from)
	if err != nil {
		return n.watchError(err)
	}
	defer w.Close()
	for {
		told, err := w.Next(ctx, n.end.stop, n.end.failed)
		if err != nil {
			return n.watchError(err)
		}
		for _, t := range told {
			if err := fn(t); err != nil {
				return err
			}
		}
	}
}

// watchError makes an error of a history the node's.
func (i ImageCalls) watchError(err error) error {
	switch {
	case errors.Is(err, state.ErrTooManyWatchers):
		return fmt.Errorf("%w: %w", ErrBusy, err)
	case errors.Is(err, state.ErrStopped):
		return i.node.Err()
	}
	return err
}
