package client

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"openvstorage/alba/fleet"
	"openvstorage/alba/object"
	"openvstorage/alba/osd"
	"openvstorage/alba/policy"
)

// stuckReads is how many reads may wait for a disk before others are asked
// instead: a disk that hangs must not take all memory.
const stuckReads = 512

// readRange fills dst with a range of a fragment: from the cache, from the disk
// that has it, or made from k others.
func (c *Client) readRange(ctx context.Context, s *space, e *entry, r object.Range, dst []byte) error {
	if c.fromCache(e, r, dst) {
		return nil
	}
	r = c.prefer(e, r)
	d, err := c.diskOf(e, r.Chunk, r.Fragment)
	switch {
	case err != nil:
	case c.others(e, r, r.Fragment) < int(e.m.Policy.K):
		// Nobody else could be asked, however long it takes.
		t := c.newTask(e, r, 1)
		t.buf = dst
		t.run(ctx, d)
		err = t.err
		t.buf = nil
		t.release()
		if err == nil {
			return nil
		}
		c.report(e, r, err)
		return c.unreadable(s, e, r, errors.Join(err, c.absent(e, r.Chunk)))
	case d.Stuck(stuckReads):
		err = fmt.Errorf("disk %d (%s): %d reads wait for it", d.Number, d.Place, stuckReads)
	default:
		return c.readHedged(ctx, s, e, r, d, dst)
	}
	return c.fromOthers(ctx, s, e, r, dst, err)
}

// readHedged reads a range from its disk, and from others too if it is slow.
func (c *Client) readHedged(ctx context.Context, s *space, e *entry, r object.Range, d *fleet.Disk, dst []byte) error {
	t := c.newTask(e, r, 2)
	t.buf = c.buffers.take(int(r.Len))
	ctx = context.WithoutCancel(ctx) // its buffer must not be let go of half-way
	go func() {
		t.run(ctx, d)
		t.done <- struct{}{}
		t.release()
	}()
	timer := time.NewTimer(d.Patience())
	defer timer.Stop()
	defer t.release()
	slow := error(nil)
	select {
	case <-t.done:
	case <-timer.C:
		c.stats.hedged.Add(1)
		slow = fmt.Errorf("disk %d (%s) is slow", d.Number, d.Place)
		if c.fromOthers(ctx, s, e, r, dst, slow) == nil {
			return nil
		}
		<-t.done
	}
	if t.err == nil {
		copy(dst, t.buf)
		return nil
	}
	c.report(e, r, t.err)
	if slow != nil {
		return c.unreadable(s, e, r, errors.Join(t.err, c.absent(e, r.Chunk)))
	}
	return c.fromOthers(ctx, s, e, r, dst, t.err)
}

// task is one read of a range from one disk.
type task struct {
	c    *Client
	e    *entry
	r    object.Range
	buf  []byte // the task's own, given back with it
	crcs []uint32
	key  []byte
	err  error
	done chan struct{}
	refs atomic.Int32
}

func (c *Client) newTask(e *entry, r object.Range, refs int32) *task {
	t, ok := c.tasks.Get().(*task)
	if !ok {
		t = &task{c: c, done: make(chan struct{}, 1)}
	}
	t.e, t.r, t.err = e, r, nil
	t.refs.Store(refs)
	if n := int(r.Len) / osd.BlockSize; cap(t.crcs) < n {
		t.crcs = make([]uint32, n)
	} else {
		t.crcs = t.crcs[:n]
	}
	return t
}

// release ends one use of a task.
func (t *task) release() {
	if t.refs.Add(-1) > 0 {
		return
	}
	if t.buf != nil {
		t.c.buffers.give(t.buf)
		t.buf = nil
	}
	select { // a result that nobody waited for
	case <-t.done:
	default:
	}
	t.e = nil
	t.c.tasks.Put(t)
}

// run reads the range, checks it, and offers it to the cache.
func (t *task) run(ctx context.Context, d *fleet.Disk) {
	c := t.c
	t.key = t.e.m.Key(t.r.Chunk, t.r.Fragment).Append(t.key[:0])
	if t.err = d.Read(ctx, t.key, t.r.Off, t.buf, t.crcs); t.err != nil {
		return
	}
	c.stats.reads.Add(1)
	c.stats.readBytes.Add(uint64(t.r.Len))
	if t.err = object.Verify(t.e.m, t.r, t.buf, t.crcs); t.err != nil {
		t.err = fmt.Errorf("disk %d (%s): %w", d.Number, d.Place, t.err)
		return
	}
	c.toCache(t.e, t.r, t.buf, t.crcs)
}

// diskOf returns the disk that has a fragment, or why it cannot be read.
func (c *Client) diskOf(e *entry, chunk, fragment int) (*fleet.Disk, error) {
	f := &e.m.Chunks[chunk].Fragments[fragment]
	if f.OSD == policy.None {
		return nil, fmt.Errorf("fragment %d is on no disk yet", fragment)
	}
	d := c.opt.Fleet.Disk(f.OSD)
	if d == nil {
		return nil, fmt.Errorf("disk %d: %w: it is lost", f.OSD, fleet.ErrMissing)
	}
	return d, d.Missing()
}

// prefer returns the range to read first: with k = 1 all fragments have the
// same bytes, and one whose disk is there will do.
func (c *Client) prefer(e *entry, r object.Range) object.Range {
	if e.m.Policy.K > 1 {
		return r
	}
	for i := range e.m.Policy.Width() {
		if _, err := c.diskOf(e, r.Chunk, i); err == nil {
			r.Fragment = i
			return r
		}
	}
	return r
}

// others counts the fragments of a chunk, besides one, whose disks are there.
func (c *Client) others(e *entry, r object.Range, besides int) int {
	n := 0
	for i := range e.m.Policy.Width() {
		if i == besides {
			continue
		}
		if _, err := c.diskOf(e, r.Chunk, i); err == nil {
			n++
		}
	}
	return n
}

// absent says which fragments of a chunk cannot be read, and why.
func (c *Client) absent(e *entry, chunk int) error {
	var errs []error
	for i := range e.m.Policy.Width() {
		if _, err := c.diskOf(e, chunk, i); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// fromOthers makes a range from k other fragments. why is the reason why its
// own cannot be read.
func (c *Client) fromOthers(ctx context.Context, s *space, e *entry, r object.Range, dst []byte, why error) error {
	k := int(e.m.Policy.K)
	bad := make([]bool, e.m.Policy.Width())
	bad[r.Fragment] = true
	good := make([]*task, 0, k)
	defer func() {
		for _, t := range good {
			t.release()
		}
	}()
	errs := []error{why}
	for len(good) < k {
		batch := c.startOthers(ctx, e, r, bad, k-len(good))
		if len(batch) == 0 {
			return c.unreadable(s, e, r, errors.Join(append(errs, c.absent(e, r.Chunk))...))
		}
		for _, t := range batch {
			<-t.done
			if t.err == nil {
				good = append(good, t)
				continue
			}
			errs = append(errs, t.err)
			c.report(e, t.r, t.err)
			t.release()
		}
	}
	from, parts := make([]object.Range, k), make([][]byte, k)
	for i, t := range good {
		from[i], parts[i] = t.r, t.buf
	}
	if err := object.Recover(dst, e.m, r, from, parts); err != nil {
		return err
	}
	c.stats.degraded.Add(1)
	c.toCache(e, r, dst, nil)
	return nil
}

// startOthers begins to read a range of up to n fragments that were not tried
// yet, data before parity, and marks them as tried.
func (c *Client) startOthers(ctx context.Context, e *entry, r object.Range, tried []bool, n int) []*task {
	var batch []*task
	for i := range tried {
		if len(batch) == n {
			break
		}
		d, err := c.diskOf(e, r.Chunk, i)
		if tried[i] || err != nil {
			continue
		}
		tried[i] = true
		other := r
		other.Fragment = i
		t := c.newTask(e, other, 1)
		t.buf = c.buffers.take(int(r.Len))
		batch = append(batch, t)
		go func() {
			t.run(context.WithoutCancel(ctx), d)
			t.done <- struct{}{}
		}()
	}
	return batch
}

// report tells of a fragment that is not what its manifest says. A disk that
// does not answer is not news of a fragment.
func (c *Client) report(e *entry, r object.Range, err error) {
	if !errors.Is(err, osd.ErrNotFound) && !errors.Is(err, osd.ErrCorrupt) && !errors.Is(err, osd.ErrUnreadable) && !errors.Is(err, osd.ErrInvalid) && !isCorrupt(err) {
		return
	}
	f := e.m.Chunks[r.Chunk].Fragments[r.Fragment]
	c.opt.Logger.Warn("a fragment is missing or bad", "object", e.m.Name, "namespace", e.m.Namespace, "fragment", e.m.Key(r.Chunk, r.Fragment), "disk", f.OSD, "err", err)
	c.opt.Bad(Bad{Namespace: e.m.Namespace, Name: e.m.Name, Object: e.m.Object, Chunk: r.Chunk, Fragment: r.Fragment, OSD: f.OSD, Err: err})
}
