package kvclient

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"openvstorage/arakoon"
	"openvstorage/arakoon/kv"
)

// watchWait is how long a member waits for events before it answers without.
const watchWait = 30 * time.Second

// Watch calls fn with what happens to the keys with a prefix, from a revision on; 0: from
// now. Each call has all events of one revision; revisions come in order, and none is left
// out, whichever members answer. A call without events says that all up to its revision has
// been told, so that the caller knows where to go on; the first call of a watch from now is
// one.
//
// It returns when fn fails, with that error; when ctx ends; with arakoon.ErrBusy if the member
// takes no further watch before the first answer; or with *arakoon.ErrCompacted if the events
// from there on are not kept any more. After that the caller reads the keys, arakoon.AtLeast
// the revision before First, and watches from First on. fn may keep the slices and must not
// change them.
func (c *Client) Watch(ctx context.Context, prefix []byte, from uint64, fn func(arakoon.Events) error) error {
	for begun := false; ; begun = true {
		q := &request{op: kv.OpWatch, header: kv.AppendWatch(nil, from, watchWait, uint32(c.o.PageSize), prefix), near: true, again: true, on: begun}
		if from > 0 { // otherwise it is answered at once
			q.wait = watchWait
		}
		reply, err := c.do(ctx, q, new(turn))
		if err != nil {
			return err
		}
		next, _, err := kv.ReadWritten(reply.Header)
		body := bytes.Clone(reply.Body)
		reply.Release()
		if err == nil && next < max(from, 1) {
			err = fmt.Errorf("it goes on at %d, behind %d", next, from)
		}
		if err != nil {
			return c.unreadable(q, err)
		}
		failed := error(nil)
		err = kv.ReadEvents(body, func(e arakoon.Events) error { failed = fn(e); return failed })
		switch {
		case failed != nil:
			return failed
		case err != nil:
			return c.unreadable(q, err)
		case len(body) == 0 && next > from:
			if err := fn(arakoon.Events{Revision: next - 1}); err != nil {
				return err
			}
		}
		from = next
	}
}
