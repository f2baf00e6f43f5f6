package volumedriver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"openvstorage/backend"
	"openvstorage/device"
	"openvstorage/internal/disk"
	"openvstorage/metadata"
	"openvstorage/sco"
	"openvstorage/tlog"
	"openvstorage/writebuffer"
)

// lookups is how many locations are looked up at a time: 1 MiB of clusters.
const lookups = 256

// Size is the vDisk's size in bytes.
func (v *Volume) Size() int64 { return int64(v.size.Load()) }

// within returns nil if n bytes at off lie within a device of size bytes, else an
// error that is EINVAL, or errno for what goes beyond the end. Front ends check that
// too: what reaches here all the same must change nothing, and never the map, which
// would halt the vDisk. A vDisk never shrinks, so what was within stays so.
func (v *Volume) within(off, n int64, size uint64, errno syscall.Errno) error {
	if off >= 0 && n >= 0 && uint64(off) <= size && uint64(n) <= size-uint64(off) {
		return nil
	}
	return v.outside(off, n, size, errno)
}

func (v *Volume) outside(off, n int64, size uint64, errno syscall.Errno) error {
	if off < 0 || n < 0 {
		return fmt.Errorf("vDisk %q: %d bytes at %d: no such range: %w", v.Name(), n, off, syscall.EINVAL)
	}
	return fmt.Errorf("vDisk %q: %d bytes at %d go beyond its end at %d: %w", v.Name(), n, off, size, errno)
}

// allWithin is within for a batch to be written.
func (v *Volume) allWithin(batch []device.Span) error {
	size := v.size.Load()
	for _, s := range batch {
		if err := v.within(s.Off, int64(len(s.Data)), size, syscall.ENOSPC); err != nil {
			return err
		}
	}
	return nil
}

// TryRead fills p from off if nothing slower than memory is needed.
func (v *Volume) TryRead(p []byte, off int64) error {
	if err := v.within(off, int64(len(p)), v.size.Load(), syscall.EINVAL); err != nil {
		return err
	}
	if off%sco.ClusterSize != 0 || len(p)%sco.ClusterSize != 0 {
		return device.ErrWouldBlock
	}
	if err := v.tryRead(v.head, p, off); err != nil {
		return err
	}
	v.count.read(len(p))
	return nil
}

func (v *Volume) tryRead(view *metadata.View, p []byte, off int64) error {
	var buf [lookups]sco.Location
	addr := uint64(off) / sco.ClusterSize
	var waits error // device.ErrUnderWay: the rest is tried all the same, to start it too
	if err := v.gone(); err != nil {
		return err
	}
	for len(p) > 0 {
		locs := buf[:min(len(p)/sco.ClusterSize, lookups)]
		if !view.Lookup(addr, locs) {
			return device.ErrWouldBlock
		}
		addr += uint64(len(locs))
		for len(locs) > 0 {
			n := runOf(locs)
			part := p[:n*sco.ClusterSize]
			if locs[0].Kind() != sco.KindData {
				clear(part)
			} else if locs[0].Origin() != v.self {
				return device.ErrWouldBlock
			} else if found, err := v.buf.Read(locs[0], part, false); found && err == disk.ErrWouldBlock {
				waits = device.ErrUnderWay
			} else if !found || err != nil {
				return device.ErrWouldBlock // whatever it is, Read deals with it
			}
			p, locs = p[n*sco.ClusterSize:], locs[n:]
		}
	}
	return waits
}

// runOf is how many of the locations one read can serve: consecutive blocks of
// one SCO, or neighbours that read as zeros.
func runOf(locs []sco.Location) int {
	n := 1
	if locs[0].Kind() == sco.KindData {
		for n < len(locs) && locs[n] == locs[n-1]+1 && locs[n].Number() == locs[0].Number() {
			n++
		}
		return n
	}
	for n < len(locs) && locs[n].Kind() != sco.KindData {
		n++
	}
	return n
}

// Read fills p from off, waiting for what it takes. Every byte was verified
// against the checksum made when it was written (P2).
func (v *Volume) Read(ctx context.Context, p []byte, off int64) error {
	if err := v.within(off, int64(len(p)), v.size.Load(), syscall.EINVAL); err != nil {
		return err
	}
	v.count.read(len(p))
	return v.read(ctx, v.head, p, off)
}

func (v *Volume) read(ctx context.Context, view *metadata.View, p []byte, off int64) error {
	if skip := off % sco.ClusterSize; skip != 0 || len(p) < sco.ClusterSize {
		return v.readEdge(ctx, view, p, off, int(skip))
	}
	whole := len(p) / sco.ClusterSize * sco.ClusterSize
	if err := v.readClusters(ctx, view, p[:whole], uint64(off)/sco.ClusterSize); err != nil {
		return err
	}
	if whole < len(p) {
		return v.readEdge(ctx, view, p[whole:], off+int64(whole), 0)
	}
	return nil
}

// readEdge reads what p has of one cluster through a cluster-sized buffer, and
// the rest as read does.
func (v *Volume) readEdge(ctx context.Context, view *metadata.View, p []byte, off int64, skip int) error {
	if len(p) == 0 {
		return nil
	}
	cluster := make([]byte, sco.ClusterSize)
	if err := v.readClusters(ctx, view, cluster, uint64(off)/sco.ClusterSize); err != nil {
		return err
	}
	n := copy(p, cluster[skip:])
	return v.read(ctx, view, p[n:], off+int64(n))
}

// readClusters fills p, whole clusters from addr on. A cluster that cannot be
// read may have been overwritten since its location was looked up, and its SCO
// collected: if the map has moved on, it is read where it is now. What too few disks
// answer for is waited for.
func (v *Volume) readClusters(ctx context.Context, view *metadata.View, p []byte, addr uint64) error {
	var buf, failed [lookups]sco.Location
	n := 0 // locations in failed
	var last error
	var h hunger
	defer v.fed(&h)
	for len(p) > 0 {
		if err := v.gone(); err != nil {
			return err
		}
		locs := buf[:min(len(p)/sco.ClusterSize, lookups)]
		if err := view.Read(ctx, addr, locs); err != nil {
			if err = v.await(ctx, &h, err); err != nil {
				return fmt.Errorf("vDisk %q: %w", v.Name(), err)
			}
			last = nil
			continue
		}
		if last != nil && (ctx.Err() != nil || len(locs) >= n && slices.Equal(locs[:n], failed[:n])) {
			return v.readError(ctx, addr, failed[0], last)
		}
		done, err := v.readLocations(ctx, p, locs)
		p, addr = p[done*sco.ClusterSize:], addr+uint64(done)
		if last = err; err != nil {
			if errors.Is(err, backend.ErrUnavailable) {
				if last = v.await(ctx, &h, err); last != nil {
					return v.readError(ctx, addr, locs[done], last)
				}
				continue
			}
			n = copy(failed[:], locs[done:done+runOf(locs[done:])])
		}
	}
	return nil
}

// readError is the error of a read that failed at a cluster, or was given up.
func (v *Volume) readError(ctx context.Context, addr uint64, loc sco.Location, cause error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("vDisk %q: read at %d: %w", v.Name(), addr*sco.ClusterSize, err)
	}
	v.log.Error("read failed", "offset", addr*sco.ClusterSize, "location", loc, "err", cause)
	return fmt.Errorf("vDisk %q: read at %d: %w", v.Name(), addr*sco.ClusterSize, errors.Join(syscall.EIO, cause))
}

// readLocations reads the clusters of locs into p and returns how many it did.
func (v *Volume) readLocations(ctx context.Context, p []byte, locs []sco.Location) (done int, err error) {
	for done < len(locs) {
		n, err := v.readSome(ctx, p[done*sco.ClusterSize:], locs[done:])
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// readSome reads the first clusters of locs into p and returns how many: a run at
// least, from the write buffer, else from the backend. If it fails, the run is
// what failed.
func (v *Volume) readSome(ctx context.Context, p []byte, locs []sco.Location) (int, error) {
	n, loc := runOf(locs), locs[0]
	run := p[:n*sco.ClusterSize]
	if loc.Kind() != sco.KindData {
		clear(run)
		return n, nil
	}
	if loc.Origin() == v.self {
		found, err := v.buf.Read(loc, run, true)
		if found && err == nil {
			return n, nil
		}
		if found {
			// The buffer's copy is bad. If the SCO is stored, the backend's is good.
			v.log.Error("write buffer copy is bad", "location", loc, "err", err)
			berr := v.readBackend(ctx, run, loc)
			switch {
			case berr == nil:
				return n, nil
			case errors.Is(berr, backend.ErrUnavailable):
				return 0, errors.Join(err, berr)
			}
			return 0, err
		}
	}
	// Whatever is wrong with a spread, its runs are read by themselves: one of them
	// may have been overwritten and its SCO collected.
	if spread := spreadOf(locs); spread > n && v.readSpread(ctx, p, locs[:spread]) == nil {
		return spread, nil
	}
	return n, v.readBackend(ctx, run, loc)
}

// TryWrite writes the batch, all of it or none, if nothing slower than memory
// is needed.
func (v *Volume) TryWrite(batch []device.Span) error {
	if err := v.Err(); err != nil {
		return err
	}
	if err := v.allWithin(batch); err != nil {
		return err
	}
	b := v.batch()
	defer v.free(b)
	bytes := 0
	for _, s := range batch {
		if len(s.Data) == 0 {
			continue // it would be an entry of nothing, which the map refuses
		}
		addr, n := uint64(s.Off)/sco.ClusterSize, len(s.Data)/sco.ClusterSize
		if s.Off%sco.ClusterSize != 0 || len(s.Data)%sco.ClusterSize != 0 || !v.m.Resident(addr, n) {
			return device.ErrWouldBlock
		}
		b.Spans = append(b.Spans, writebuffer.Span{Addr: addr, Data: s.Data})
		bytes += len(s.Data)
	}
	if err := v.buf.TryAppend(b); err != nil {
		if err == disk.ErrWouldBlock {
			return device.ErrWouldBlock
		}
		return v.writeError(err)
	}
	v.count.write(len(batch), bytes)
	return nil
}

// Write writes the batch in order, waiting for room (P6). Nothing of it is written if
// a part goes beyond the end: ENOSPC.
func (v *Volume) Write(ctx context.Context, batch []device.Span) error {
	if err := v.Err(); err != nil {
		return err
	}
	if err := v.allWithin(batch); err != nil {
		return err
	}
	b := v.batch()
	defer v.free(b)
	h := hunger{writes: true}
	defer v.fed(&h)
	clusters, bytes := 0, 0
	flush := func() error {
		if clusters == 0 {
			return nil
		}
		err := v.buf.Append(ctx, b)
		b.Reset()
		clusters = 0
		return err
	}
	for _, s := range batch {
		bytes += len(s.Data)
		for off, data := s.Off, s.Data; len(data) > 0; {
			skip := int(off % sco.ClusterSize)
			n := min(sco.ClusterSize-skip, len(data)) // of a partial cluster
			if skip == 0 && n == sco.ClusterSize {
				n = min(len(data)/sco.ClusterSize, v.buf.BatchMax()-clusters)
				addr := uint64(off) / sco.ClusterSize
				if err := v.m.Prepare(ctx, addr, n); err != nil {
					if err = v.await(ctx, &h, err); err != nil {
						return v.writeError(err)
					}
					continue
				}
				b.Spans = append(b.Spans, writebuffer.Span{Addr: addr, Data: data[:n*sco.ClusterSize]})
				clusters += n
				n *= sco.ClusterSize
				if clusters == v.buf.BatchMax() {
					if err := flush(); err != nil {
						return v.writeError(err)
					}
				}
			} else {
				if err := flush(); err != nil {
					return v.writeError(err)
				}
				if err := v.writePartial(ctx, off, data[:n]); err != nil {
					if err = v.await(ctx, &h, err); err != nil {
						return v.writeError(err)
					}
					continue
				}
			}
			off, data = off+int64(n), data[n:]
		}
	}
	if err := flush(); err != nil {
		return v.writeError(err)
	}
	v.count.write(len(batch), bytes)
	return nil
}

// writePartial merges data into the cluster at off: the old cluster is read
// and verified, and the new one appended whole (O1), unless the cluster has
// changed in between; then again.
func (v *Volume) writePartial(ctx context.Context, off int64, data []byte) error {
	select {
	case v.rmw <- struct{}{}:
		defer func() { <-v.rmw }()
	case <-ctx.Done():
		return ctx.Err()
	}
	addr := uint64(off) / sco.ClusterSize
	cluster := make([]byte, sco.ClusterSize)
	b := v.batch()
	defer v.free(b)
	for {
		if err := v.m.Prepare(ctx, addr, 1); err != nil {
			return err
		}
		var was, is [1]sco.Location
		if !v.head.Lookup(addr, was[:]) {
			continue
		}
		if _, err := v.readLocations(ctx, cluster, was[:]); err != nil {
			if v.head.Lookup(addr, is[:]) && is != was {
				continue // overwritten and collected meanwhile
			}
			return errors.Join(syscall.EIO, err)
		}
		copy(cluster[off%sco.ClusterSize:], data)
		b.Reset()
		b.Spans = append(b.Spans, writebuffer.Span{Addr: addr, Data: cluster})
		b.Check = func() bool { return v.head.Lookup(addr, is[:]) && is == was }
		if err := v.buf.Append(ctx, b); err != writebuffer.ErrChanged {
			return err
		}
	}
}

// batch takes a free batch or makes one; free gives it back.
func (v *Volume) batch() *writebuffer.Batch {
	select {
	case b := <-v.batches:
		return b
	default:
		return new(writebuffer.Batch)
	}
}

func (v *Volume) free(b *writebuffer.Batch) {
	b.Reset()
	select {
	case v.batches <- b:
	default:
	}
}

// Flush makes every write that has returned durable, whoever made it (O9).
func (v *Volume) Flush(ctx context.Context) error {
	if err := v.Err(); err != nil {
		return err
	}
	v.count.flushes.Add(1)
	if err := v.buf.Commit(ctx, v.buf.Written()); err != nil {
		return v.writeError(err)
	}
	return nil
}

// Trim makes the whole clusters of the range unallocated and zeroes the rest.
func (v *Volume) Trim(ctx context.Context, off, n int64) error {
	return v.fill(ctx, tlog.KindTrim, off, n, syscall.EINVAL)
}

// Zero makes the range read as zeros; with allocate it counts as allocated.
func (v *Volume) Zero(ctx context.Context, off, n int64, allocate bool) error {
	if allocate {
		return v.fill(ctx, tlog.KindZero, off, n, syscall.ENOSPC)
	}
	return v.fill(ctx, tlog.KindTrim, off, n, syscall.ENOSPC)
}

// fill appends one entry for the whole clusters, however many there are. beyond is
// what a range is refused with that goes beyond the end.
func (v *Volume) fill(ctx context.Context, kind tlog.Kind, off, n int64, beyond syscall.Errno) error {
	if err := v.Err(); err != nil {
		return err
	}
	if err := v.within(off, n, v.size.Load(), beyond); err != nil {
		return err
	}
	end := off + n
	first := (off + sco.ClusterSize - 1) / sco.ClusterSize * sco.ClusterSize
	last := end / sco.ClusterSize * sco.ClusterSize
	if first > last {
		return v.zeroPart(ctx, off, n)
	}
	if err := v.zeroPart(ctx, off, first-off); err != nil {
		return err
	}
	for at := first; at < last; {
		run := min((last-at)/sco.ClusterSize, 1<<31)
		addr := uint64(at) / sco.ClusterSize
		// The entry costs the pages at its edges. One that cannot be read fails
		// the request here; in the append section it would halt the vDisk.
		for _, edge := range []uint64{addr, addr + uint64(run) - 1} {
			if err := v.load(ctx, edge); err != nil {
				return v.writeError(err)
			}
		}
		if _, err := v.buf.AppendEntry(ctx, tlog.Entry{Kind: kind, Addr: addr, Run: uint32(run)}); err != nil {
			return v.writeError(err)
		}
		at += run * sco.ClusterSize
	}
	v.count.trims.Add(1)
	return v.zeroPart(ctx, last, end-last)
}

// load brings the page of a cluster into memory.
func (v *Volume) load(ctx context.Context, addr uint64) error {
	h := hunger{writes: true}
	defer v.fed(&h)
	for {
		err := v.head.Load(ctx, addr, 1)
		if err == nil {
			return nil
		}
		if err = v.await(ctx, &h, err); err != nil {
			return err
		}
	}
}

// zeroPart writes zeros to less than a cluster. A hole stays a hole.
func (v *Volume) zeroPart(ctx context.Context, off, n int64) error {
	if n <= 0 {
		return nil
	}
	var loc [1]sco.Location
	h := hunger{writes: true}
	defer v.fed(&h)
	for {
		err := v.head.Read(ctx, uint64(off)/sco.ClusterSize, loc[:])
		if err == nil {
			break
		}
		if err = v.await(ctx, &h, err); err != nil {
			return v.writeError(err)
		}
	}
	if loc[0].Kind() != sco.KindData {
		return nil
	}
	return v.Write(ctx, []device.Span{{Off: off, Data: make([]byte, n)}})
}

// Extents reports the allocation of [off, off+n) in order.
func (v *Volume) Extents(ctx context.Context, off, n int64, fn func(device.Extent) bool) error {
	return v.extents(ctx, v.head, v.size.Load(), off, n, fn)
}

func (v *Volume) extents(ctx context.Context, view *metadata.View, size uint64, off, n int64, fn func(device.Extent) bool) error {
	if err := v.within(off, n, size, syscall.EINVAL); err != nil {
		return err
	}
	first := uint64(off) / sco.ClusterSize
	count := (uint64(off+n)+sco.ClusterSize-1)/sco.ClusterSize - first
	skip, left := off%sco.ClusterSize, n
	if err := v.gone(); err != nil {
		return err
	}
	var h hunger
	defer v.fed(&h)
	for {
		err := view.Extents(ctx, first, count, func(kind sco.Kind, run uint64) bool {
			first, count = first+run, count-run
			length := min(int64(run)*sco.ClusterSize-skip, left)
			skip, left = 0, left-length
			return fn(device.Extent{Length: length, Hole: kind == sco.KindHole, Zero: kind != sco.KindData})
		})
		if err == nil {
			return nil
		}
		// What fn has had it does not get again.
		if err = v.await(ctx, &h, err); err != nil {
			return fmt.Errorf("vDisk %q: %w", v.Name(), err)
		}
	}
}

// Prefetch brings the map of the range into memory.
func (v *Volume) Prefetch(ctx context.Context, off, n int64) error {
	return v.prefetch(ctx, v.head, v.size.Load(), off, n)
}

func (v *Volume) prefetch(ctx context.Context, view *metadata.View, size uint64, off, n int64) error {
	if err := v.within(off, n, size, syscall.EINVAL); err != nil {
		return err
	}
	first := uint64(off) / sco.ClusterSize
	return view.Load(ctx, first, (uint64(off+n)+sco.ClusterSize-1)/sco.ClusterSize-first)
}
