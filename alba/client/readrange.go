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
func (rd *reader) readRange(ctx context.Context, s *space, e *entry, r object.Range, dst []byte) error {
	if rd.fromCache(e, r, dst) {
		return nil
	}
	rd.counts.asked.Add(1)
	rd.hedges.asked(1)
	r = rd.prefer(e, r)
	d, err := rd.diskOf(e, r.Chunk, r.Fragment)
	others := rd.others(e, r, r.Fragment) >= int(e.m.Policy.K)
	passed := false
	switch {
	case err != nil:
		return rd.fromOthers(ctx, s, e, r, dst, ownRead{why: err})
	case !others: // nobody else could be asked
		return rd.readAlone(ctx, s, e, r, d, dst, make([]error, e.m.Policy.Width()))
	case d.Silent() != nil:
		err = d.Silent()
	case rd.passedOver(e, r, d):
		passed = true
		err = fmt.Errorf("disk %d (%s) is slow", d.Number, d.Place)
	case d.Stuck(stuckReads):
		err = fmt.Errorf("disk %d (%s): %d reads wait for it", d.Number, d.Place, stuckReads)
	default:
		return rd.readHedged(ctx, s, e, r, d, dst)
	}
	failed := make([]error, e.m.Policy.Width())
	if rd.gather(ctx, e, r, dst, ownRead{why: err, passed: passed}, failed) == nil {
		return nil
	}
	return rd.readAlone(ctx, s, e, r, d, dst, failed)
}

// begin starts the read of a range from its own disk.
func (rd *reader) begin(ctx context.Context, e *entry, r object.Range, d *fleet.Disk) *task {
	t := rd.newTask(e, r, d, 2)
	t.buf = rd.buffers.take(int(r.Len))
	ctx = context.WithoutCancel(ctx) // its buffer must not be let go of half-way
	go func() {
		t.run(ctx)
		t.done <- struct{}{}
		t.release()
	}()
	return t
}

// readAlone reads a range from its disk, which is the only one that can give it.
func (rd *reader) readAlone(ctx context.Context, s *space, e *entry, r object.Range, d *fleet.Disk, dst []byte, failed []error) error {
	lacks := func(err error) error {
		failed[r.Fragment] = err
		return rd.unreadable(s, e, r, rd.lacking(ctx, e, r, failed))
	}
	if err := d.Silent(); err != nil && notAsked(d) {
		return lacks(err)
	}
	answers := d.Answers()
	t := rd.begin(ctx, e, r, d)
	defer t.release()
	select {
	case <-t.done:
	case <-ctx.Done():
		return ctx.Err()
	case <-answers.Done():
		late := time.NewTimer(silentPatience)
		defer late.Stop()
		select {
		case <-t.done:
		case <-ctx.Done():
			return ctx.Err()
		case <-late.C:
			return lacks(silentNow(d))
		}
	}
	if t.err == nil {
		copy(dst, t.buf)
		return nil
	}
	rd.report(e, r, t.err)
	return lacks(t.err)
}

// readHedged reads a range from its disk, and from others too if that is late.
func (rd *reader) readHedged(ctx context.Context, s *space, e *entry, r object.Range, d *fleet.Disk, dst []byte) error {
	t := rd.begin(ctx, e, r, d)
	defer t.release()
	began, patience := time.Now(), d.Patience(int(r.Len))
	timer := time.NewTimer(patience)
	defer timer.Stop()
	late := false
	for came := false; !came; {
		select {
		case <-t.done:
			came = true
		case <-timer.C:
			late = true
			waited := time.Since(began)
			paid := rd.hedges.take(int(e.m.Policy.K), waited >= lateTimes*patience)
			ask, wait := hedgeNow(waited, patience, paid)
			if ask {
				rd.counts.hedged.Add(1)
				rd.counts.hedgeReads.Add(uint64(e.m.Policy.K))
				return rd.fromOthers(ctx, s, e, r, dst, ownRead{task: t, why: fmt.Errorf("disk %d (%s) is slow", d.Number, d.Place)})
			}
			timer.Reset(wait)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	switch {
	case !late:
		d.InTime()
	case time.Since(began) >= lateTimes*patience:
		d.Overtaken() // it would have been
	}
	if t.err == nil {
		copy(dst, t.buf)
		return nil
	}
	rd.report(e, r, t.err)
	return rd.fromOthers(ctx, s, e, r, dst, ownRead{why: t.err})
}

// task is one read of a range from one disk.
type task struct {
	by   *reader
	d    *fleet.Disk
	e    *entry
	r    object.Range
	buf  []byte // the task's own, given back with it
	crcs []uint32
	key  []byte
	err  error
	done chan struct{}
	refs atomic.Int32
}

func (rd *reader) newTask(e *entry, r object.Range, d *fleet.Disk, refs int32) *task {
	t, ok := rd.tasks.Get().(*task)
	if !ok {
		t = &task{by: rd, done: make(chan struct{}, 1)}
	}
	t.e, t.r, t.d, t.err = e, r, d, nil
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
		t.by.buffers.give(t.buf)
		t.buf = nil
	}
	select { // a result that nobody waited for
	case <-t.done:
	default:
	}
	t.e, t.d = nil, nil
	t.by.tasks.Put(t)
}

// run reads the range, checks it, and offers it to the cache.
func (t *task) run(ctx context.Context) {
	rd, d := t.by, t.d
	t.key = t.e.m.Key(t.r.Chunk, t.r.Fragment).Append(t.key[:0])
	if t.err = d.ReadWaiting(ctx, t.key, t.r.Off, t.buf, t.crcs); t.err != nil {
		return
	}
	rd.counts.reads.Add(1)
	rd.counts.readBytes.Add(uint64(t.r.Len))
	if t.err = object.Verify(t.e.m, t.r, t.buf, t.crcs); t.err != nil {
		t.err = fmt.Errorf("disk %d (%s): %w", d.Number, d.Place, t.err)
		return
	}
	rd.toCache(t.e, t.r, t.buf, t.crcs)
}

// diskOf returns the disk that has a fragment, or why it cannot be read. The disk may be
// one that does not answer now: that is asked last, and may answer yet.
func (rd *reader) diskOf(e *entry, chunk, fragment int) (*fleet.Disk, error) {
	f := &e.m.Chunks[chunk].Fragments[fragment]
	if f.OSD == policy.None {
		return nil, fmt.Errorf("fragment %d is on no disk yet", fragment)
	}
	d := rd.fleet.Disk(f.OSD)
	if d == nil {
		return nil, fmt.Errorf("disk %d: %w: it is lost", f.OSD, fleet.ErrMissing)
	}
	return d, d.Attached()
}

// prefer returns the range to read first. With k = 1 all fragments have the same bytes, and
// the one on the best disk is chosen.
func (rd *reader) prefer(e *entry, r object.Range) object.Range {
	if e.m.Policy.K > 1 {
		return r
	}
	var best candidate
	for i := range e.m.Policy.Width() {
		if d, err := rd.diskOf(e, r.Chunk, i); err == nil {
			if c := rd.candidate(e, r, i, d); best.disk == nil || compareCandidates(c, best) < 0 {
				best = c
			}
		}
	}
	if best.disk != nil {
		r.Fragment = best.fragment
	}
	return r
}

// others counts the fragments of a chunk whose disks are there and answer, but for one
// fragment.
func (rd *reader) others(e *entry, r object.Range, besides int) int {
	n := 0
	for i := range e.m.Policy.Width() {
		if i == besides {
			continue
		}
		if d, err := rd.diskOf(e, r.Chunk, i); err == nil && d.Silent() == nil {
			n++
		}
	}
	return n
}

// absent says which fragments of a chunk cannot be read, and why.
func (rd *reader) absent(e *entry, chunk int) error {
	var errs []error
	for i := range e.m.Policy.Width() {
		if _, err := rd.diskOf(e, chunk, i); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// report tells of a fragment that is not what its manifest says. The error of a disk that
// does not answer says nothing of the fragment, and is not reported.
func (rd *reader) report(e *entry, r object.Range, err error) {
	if !osd.BadValue(err) && !isCorrupt(err) {
		return
	}
	f := e.m.Chunks[r.Chunk].Fragments[r.Fragment]
	rd.log.Warn("a fragment is missing or bad", "object", e.m.Name, "namespace", e.m.Namespace, "fragment", e.m.Key(r.Chunk, r.Fragment), "disk", f.OSD, "err", err)
	rd.bad(Bad{Namespace: e.m.Namespace, Name: e.m.Name, Object: e.m.Object, Chunk: r.Chunk, Fragment: r.Fragment, OSD: f.OSD, Err: err})
}
