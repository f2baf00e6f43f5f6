package asd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"openvstorage/alba/osd"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"
)

// queueMax is how many Applys wait at most; what they hold is bounded by
// Options.QueueBytes.
const queueMax = 1024

// writer decides which requests may be applied, gathers them into batches, and answers.
// Its goroutine is the only one that appends. Everything but the batch is safe for
// concurrent use; the batch is the goroutine's.
type writer struct {
	opt      *Options
	dir      *directory
	health   *health
	contents *contents
	space    *space
	spares   *spares
	reserve  *reserve
	reader   *reader // for asserts of a value
	log      *appender

	queue   chan *request
	room    *semaphore.Weighted // of bytes in the queue and in hand
	stop    chan struct{}       // closed: it is to end
	stopped chan struct{}       // closed: it has ended

	batch batch
}

// submit passes a request to the writer and waits for what becomes of it. The
// caller's memory is not used any more when it returns.
func (w *writer) submit(ctx context.Context, r *request, bytes int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := w.health.writable(); err != nil {
		return err
	}
	// Each update takes memory of the writer too. A request that is larger than the
	// queue goes alone.
	bytes = min(bytes+int64(len(r.updates)+len(r.moves))*256, w.opt.QueueBytes)
	if err := w.room.Acquire(ctx, bytes); err != nil {
		return err
	}
	defer w.room.Release(bytes)
	select {
	case w.queue <- r:
	case <-ctx.Done():
		return ctx.Err()
	case <-w.stop:
		return osd.ErrClosed
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		if r.state.CompareAndSwap(waiting, left) {
			return ctx.Err()
		}
	case <-w.stopped:
	}
	// The writer has it, or has ended. It does not end with a request in hand.
	select {
	case err := <-r.done:
		return err
	case <-w.stopped:
		select {
		case err := <-r.done:
			return err
		default:
			return osd.ErrClosed
		}
	}
}

// run is the only goroutine that appends, until end. One batch is under way at a
// time; the next one gathers while it is synced. To write the next one during that
// sync was measured to be no faster: the data goes past the page cache.
func (w *writer) run() {
	defer close(w.stopped)
	var list []*request
	for {
		select {
		case r := <-w.queue:
			list = w.gather(list[:0], r)
			w.commit(list)
			clear(list)
		case <-w.stop:
			return
		}
	}
}

// end stops the writer. Requests that it has not taken are refused.
func (w *writer) end() {
	close(w.stop)
	<-w.stopped
}

// gather takes requests that wait, as many as go into a batch.
func (w *writer) gather(list []*request, r *request) []*request {
	var size int64
	entries := 0
	for {
		if r.state.CompareAndSwap(waiting, taken) {
			list = append(list, r)
			size += r.bytes()
			entries += len(r.updates) + len(r.moves)
		}
		if size >= w.opt.BatchBytes || entries > entriesMax-osd.UpdatesMax {
			return list
		}
		select {
		case r = <-w.queue:
		default:
			return list
		}
	}
}

func (r *request) bytes() (n int64) {
	for i := range r.updates {
		if u := &r.updates[i]; !u.Delete {
			n += int64(len(u.Value.Data))
		}
	}
	for i := range r.moves {
		n += int64(len(r.moves[i].update.Value.Data))
	}
	return n
}

// commit makes the requests durable that are granted, and answers all.
func (w *writer) commit(list []*request) {
	w.write(list, false)
	for _, r := range list {
		r.done <- r.err
	}
}

// write enters the requests into a batch and writes it. If the disk has no room, it
// tries once more with those that only delete, and writes them to the reserve.
func (w *writer) write(list []*request, useReserve bool) {
	b := &w.batch
	b.reset()
	roll := false
	room, physical, err := w.roomFor(list)
	for _, r := range list {
		switch {
		case err != nil:
			r.err = err
		case r.roll:
			roll = true
			w.log.seal()
		case r.puts && b.length()+r.length() > room:
			r.err = fmt.Errorf("%w: %d bytes are left", osd.ErrFull, max(0, room-b.length()))
		case r.moves != nil && b.length()+r.length() > physical:
			r.err = fmt.Errorf("%w: %d bytes are left on the file system", osd.ErrFull, max(0, physical-b.length()))
		default:
			r.err = w.admit(b, r)
		}
	}
	if len(b.entries) == 0 && !roll {
		return
	}
	err = w.log.append(b, useReserve)
	if err == nil {
		err = w.log.sync()
	}
	if err == nil {
		w.log.publish(b)
		w.log.leaveMark()
		return
	}
	// Each request was granted on top of those before it in the batch, so none counts.
	noRoom := isNoRoom(err)
	var again []*request
	if noRoom {
		err = fmt.Errorf("%w: %w", osd.ErrFull, err)
	}
	for _, r := range list {
		r.err = err
		if !r.puts && r.moves == nil {
			again = append(again, r)
		}
	}
	if noRoom && !useReserve && len(again) > 0 && w.reserve.bytes() > 0 {
		w.write(again, true)
	}
}

func isNoRoom(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// length is what a request adds to a batch at most, in bytes.
func (r *request) length() int64 {
	n := r.bytes()
	return n + n/512 + int64(len(r.updates)+len(r.moves))*(blockSize+512) + blockSize
}

// roomFor returns how many bytes of puts there is room for, and how many bytes
// compaction may write. Compaction may exceed the limit of puts, since it makes room.
// It may not exceed what the file system has: a failed write costs a segment.
func (w *writer) roomFor(list []*request) (room, physical int64, err error) {
	if err := w.health.readOnly(); err != nil {
		return 0, 0, err
	}
	// The name that is written to must still lead to the disk. If the disk is gone
	// from under the directory, the open file would swallow all that follows.
	switch _, err := w.dir.fs.Stat(w.log.path()); {
	case errors.Is(err, fs.ErrNotExist):
		return 0, 0, w.health.fail(fmt.Errorf("the ASD's files are gone: %w", err))
	case err != nil:
		return 0, 0, err
	}
	need := int64(0)
	values := false
	for _, r := range list {
		values = values || r.puts || r.moves != nil
		need += r.bytes()
	}
	if !values {
		return 0, 0, nil
	}
	padded := need + need/8 // heads and padding, rather more
	// What a recycled segment has left is counted as used already.
	left := w.log.allocated(padded + blockSize)
	used := w.space.used()
	limit, _, on, err := w.space.limits(used)
	if err != nil {
		return 0, 0, err
	}
	free := on.Free
	if _, spares := w.spares.count(); spares > 0 && (int64(free)-spares < padded+w.opt.reserveSize() || int64(used)+spares+need > int64(limit)) {
		w.spares.drop()
	}
	return min(max(0, int64(limit)-int64(used)), int64(free)) + left, int64(free) + left, nil
}
