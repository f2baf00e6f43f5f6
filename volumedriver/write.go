package volumedriver

import (
	"context"
	"errors"
	"syscall"

	"openvstorage/device"
	"openvstorage/internal/disk"
	"openvstorage/sco"
	"openvstorage/tlog"
	"openvstorage/writebuffer"
)

// allWithin is within for a batch to be written.
func (d *Device) allWithin(batch []device.Span) error {
	size := d.size.Load()
	for _, s := range batch {
		if err := d.reader.within(s.Off, int64(len(s.Data)), size, syscall.ENOSPC); err != nil {
			return err
		}
	}
	return nil
}

// TryWrite writes the batch, all of it or none, if nothing slower than memory is needed.
// Otherwise it returns device.ErrWouldBlock.
func (d *Device) TryWrite(batch []device.Span) error {
	if err := d.Err(); err != nil {
		return err
	}
	if err := d.allWithin(batch); err != nil {
		return err
	}
	b := d.batch()
	defer d.free(b)
	bytes := 0
	for _, s := range batch {
		if len(s.Data) == 0 {
			continue // it would be an entry of nothing, which the map refuses
		}
		addr, n := uint64(s.Off)/sco.ClusterSize, len(s.Data)/sco.ClusterSize
		if s.Off%sco.ClusterSize != 0 || len(s.Data)%sco.ClusterSize != 0 || !d.m.Resident(addr, n) {
			return device.ErrWouldBlock
		}
		b.Spans = append(b.Spans, writebuffer.Span{Addr: addr, Data: s.Data})
		bytes += len(s.Data)
	}
	if err := d.buf.TryAppend(b); err != nil {
		if err == disk.ErrWouldBlock {
			return device.ErrWouldBlock
		}
		return d.writeError(err)
	}
	d.count.write(len(batch), bytes)
	return nil
}

// Write writes the batch in order, waiting for room (P6) and for disks. Nothing of it is
// written if a part goes beyond the end: ENOSPC. If it fails otherwise, a first part may
// be written.
func (d *Device) Write(ctx context.Context, batch []device.Span) error {
	if err := d.Err(); err != nil {
		return err
	}
	if err := d.allWithin(batch); err != nil {
		return err
	}
	w := writing{d: d, b: d.batch(), wait: diskWait{writes: true}}
	defer w.end()
	bytes := 0
	for _, s := range batch {
		if err := w.span(ctx, s); err != nil {
			return d.writeError(err)
		}
		bytes += len(s.Data)
	}
	if err := w.flush(ctx); err != nil {
		return d.writeError(err)
	}
	d.count.write(len(batch), bytes)
	return nil
}

// writing is a write request under way. It gathers whole clusters into batches for the
// log, as large as the log takes them.
type writing struct {
	d        *Device
	b        *writebuffer.Batch
	clusters int // gathered in b
	wait     diskWait
}

func (w *writing) end() {
	w.d.waits.end(&w.wait)
	w.d.free(w.b)
}

// span writes one span of the request, up to what is still gathered.
func (w *writing) span(ctx context.Context, s device.Span) error {
	for off, data := s.Off, s.Data; len(data) > 0; {
		n, err := w.some(ctx, off, data)
		if err != nil {
			return err
		}
		off, data = off+int64(n), data[n:]
	}
	return nil
}

// some writes the first n bytes of data: whole clusters, or the part of one. It is 0
// without an error if disks had to be waited for, and the same is to be tried again.
func (w *writing) some(ctx context.Context, off int64, data []byte) (n int, err error) {
	skip := int(off % sco.ClusterSize)
	if skip == 0 && len(data) >= sco.ClusterSize {
		return w.gather(ctx, uint64(off)/sco.ClusterSize, data)
	}
	// A part is merged with what is there, so all that comes before it goes first.
	if err := w.flush(ctx); err != nil {
		return 0, err
	}
	n = min(sco.ClusterSize-skip, len(data))
	if err := w.d.writePartial(ctx, off, data[:n]); err != nil {
		return 0, w.d.waits.await(ctx, &w.wait, err)
	}
	return n, nil
}

// gather takes as many whole clusters from addr on as the batch has room for, and returns
// how many bytes that is.
func (w *writing) gather(ctx context.Context, addr uint64, data []byte) (n int, err error) {
	most := w.d.buf.BatchMax()
	clusters := min(len(data)/sco.ClusterSize, most-w.clusters)
	if err := w.d.m.Prepare(ctx, addr, clusters); err != nil {
		return 0, w.d.waits.await(ctx, &w.wait, err)
	}
	n = clusters * sco.ClusterSize
	w.b.Spans = append(w.b.Spans, writebuffer.Span{Addr: addr, Data: data[:n]})
	if w.clusters += clusters; w.clusters == most {
		return n, w.flush(ctx)
	}
	return n, nil
}

// flush appends what is gathered to the log.
func (w *writing) flush(ctx context.Context) error {
	if w.clusters == 0 {
		return nil
	}
	err := w.d.buf.Append(ctx, w.b)
	w.b.Reset()
	w.clusters = 0
	return err
}

// writePartial merges data into the cluster at off: the old cluster is read and
// verified, and the new one is appended whole (O1). If the cluster has changed in
// between, it begins again.
func (d *Device) writePartial(ctx context.Context, off int64, data []byte) error {
	select {
	case d.rmw <- struct{}{}:
		defer func() { <-d.rmw }()
	case <-ctx.Done():
		return ctx.Err()
	}
	addr := uint64(off) / sco.ClusterSize
	cluster := make([]byte, sco.ClusterSize)
	b := d.batch()
	defer d.free(b)
	for {
		if err := d.m.Prepare(ctx, addr, 1); err != nil {
			return err
		}
		var was, is [1]sco.Location
		if !d.head.Lookup(addr, was[:]) {
			continue
		}
		if _, err := d.reader.readLocations(ctx, cluster, was[:]); err != nil {
			if d.head.Lookup(addr, is[:]) && is != was {
				continue // overwritten and collected meanwhile
			}
			return errors.Join(syscall.EIO, err)
		}
		copy(cluster[off%sco.ClusterSize:], data)
		b.Reset()
		b.Spans = append(b.Spans, writebuffer.Span{Addr: addr, Data: cluster})
		b.Check = func() bool { return d.head.Lookup(addr, is[:]) && is == was }
		if err := d.buf.Append(ctx, b); err != writebuffer.ErrChanged {
			return err
		}
	}
}

// batch takes a batch that was kept, or makes one.
func (d *Device) batch() *writebuffer.Batch {
	select {
	case b := <-d.batches:
		return b
	default:
		return new(writebuffer.Batch)
	}
}

// free keeps a batch for another request. If enough are kept, it lets go of it.
func (d *Device) free(b *writebuffer.Batch) {
	b.Reset()
	select {
	case d.batches <- b:
	default:
	}
}

// Flush makes every write that has returned durable, whichever client made it (O9).
func (d *Device) Flush(ctx context.Context) error {
	if err := d.Err(); err != nil {
		return err
	}
	d.count.flushes.Add(1)
	if err := d.buf.Commit(ctx, d.buf.Written()); err != nil {
		return d.writeError(err)
	}
	return nil
}

// Trim makes the whole clusters of the range unallocated, and zeroes the parts of
// clusters at its ends. EINVAL if the range goes beyond the end.
func (d *Device) Trim(ctx context.Context, off, n int64) error {
	return d.fill(ctx, tlog.KindTrim, off, n, syscall.EINVAL)
}

// Zero makes the range read as zeros; with allocate it counts as allocated. ENOSPC if the
// range goes beyond the end.
func (d *Device) Zero(ctx context.Context, off, n int64, allocate bool) error {
	if allocate {
		return d.fill(ctx, tlog.KindZero, off, n, syscall.ENOSPC)
	}
	return d.fill(ctx, tlog.KindTrim, off, n, syscall.ENOSPC)
}

// fill appends one entry for the whole clusters, however many there are (up to 8 TiB). A
// range that goes beyond the end is refused with beyond.
func (d *Device) fill(ctx context.Context, kind tlog.Kind, off, n int64, beyond syscall.Errno) error {
	if err := d.Err(); err != nil {
		return err
	}
	if err := d.reader.within(off, n, d.size.Load(), beyond); err != nil {
		return err
	}
	end := off + n
	first := (off + sco.ClusterSize - 1) / sco.ClusterSize * sco.ClusterSize
	last := end / sco.ClusterSize * sco.ClusterSize
	if first > last {
		return d.zeroPart(ctx, off, n)
	}
	if err := d.zeroPart(ctx, off, first-off); err != nil {
		return err
	}
	for at := first; at < last; {
		run := min((last-at)/sco.ClusterSize, 1<<31)
		addr := uint64(at) / sco.ClusterSize
		// The map needs the pages at both ends of the entry. One that cannot be read
		// fails the request here; in the append section it would halt the vDisk.
		for _, edge := range []uint64{addr, addr + uint64(run) - 1} {
			if err := d.load(ctx, edge); err != nil {
				return d.writeError(err)
			}
		}
		if _, err := d.buf.AppendEntry(ctx, tlog.Entry{Kind: kind, Addr: addr, Run: uint32(run)}); err != nil {
			return d.writeError(err)
		}
		at += run * sco.ClusterSize
	}
	d.count.trims.Add(1)
	return d.zeroPart(ctx, last, end-last)
}

// load brings the page of a cluster into memory.
func (d *Device) load(ctx context.Context, addr uint64) error {
	h := diskWait{writes: true}
	defer d.waits.end(&h)
	for {
		err := d.head.Load(ctx, addr, 1)
		if err == nil {
			return nil
		}
		if err = d.waits.await(ctx, &h, err); err != nil {
			return err
		}
	}
}

// zeroPart writes zeros to less than a cluster. A hole stays a hole.
func (d *Device) zeroPart(ctx context.Context, off, n int64) error {
	if n <= 0 {
		return nil
	}
	var loc [1]sco.Location
	h := diskWait{writes: true}
	defer d.waits.end(&h)
	for {
		err := d.head.Read(ctx, uint64(off)/sco.ClusterSize, loc[:])
		if err == nil {
			break
		}
		if err = d.waits.await(ctx, &h, err); err != nil {
			return d.writeError(err)
		}
	}
	if loc[0].Kind() != sco.KindData {
		return nil
	}
	return d.Write(ctx, []device.Span{{Off: off, Data: make([]byte, n)}})
}
