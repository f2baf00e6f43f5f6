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
)

// lookups is how many locations are looked up at a time: 1 MiB of clusters.
const lookups = 256

// reader reads the live state of a vDisk and its snapshots: what a view of the map names,
// from the write buffer or from the backend. It has no state, and any number of
// goroutines read at a time.
type reader struct {
	*core
	waits *diskWaits
}

// within returns nil if n bytes at off lie within a device of size bytes. Otherwise it
// returns errno if the range goes beyond the end, and EINVAL if it is no range. Front ends
// check that too. But if a wrong range reached the map, the vDisk would halt, so it is
// refused here once more. A vDisk never shrinks, so a range that was within stays within.
func (r *reader) within(off, n int64, size uint64, errno syscall.Errno) error {
	if off >= 0 && n >= 0 && uint64(off) <= size && uint64(n) <= size-uint64(off) {
		return nil
	}
	return r.outside(off, n, size, errno)
}

func (r *reader) outside(off, n int64, size uint64, errno syscall.Errno) error {
	if off < 0 || n < 0 {
		return fmt.Errorf("vDisk %q: %d bytes at %d: no such range: %w", r.Name(), n, off, syscall.EINVAL)
	}
	return fmt.Errorf("vDisk %q: %d bytes at %d go beyond its end at %d: %w", r.Name(), n, off, size, errno)
}

// tryRead is Device.TryRead of what a view of size bytes names.
func (r *reader) tryRead(view *metadata.View, size uint64, p []byte, off int64) error {
	if err := r.within(off, int64(len(p)), size, syscall.EINVAL); err != nil {
		return err
	}
	if off%sco.ClusterSize != 0 || len(p)%sco.ClusterSize != 0 {
		return device.ErrWouldBlock
	}
	if err := r.tryClusters(view, p, uint64(off)/sco.ClusterSize); err != nil {
		return err
	}
	r.count.read(len(p))
	return nil
}

// tryClusters fills p, whole clusters from addr on, from memory.
func (r *reader) tryClusters(view *metadata.View, p []byte, addr uint64) error {
	var buf [lookups]sco.Location
	log, self := r.buf, r.self
	var waits error // device.ErrUnderWay: the rest is tried all the same, to start it too
	if err := r.gone(); err != nil {
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
			} else if locs[0].Origin() != self {
				return device.ErrWouldBlock
			} else if found, err := log.Read(locs[0], part, false); found && err == disk.ErrWouldBlock {
				waits = device.ErrUnderWay
			} else if !found || err != nil {
				return device.ErrWouldBlock // whatever it is, Read deals with it
			}
			p, locs = p[n*sco.ClusterSize:], locs[n:]
		}
	}
	return waits
}

// runOf is how many of the first locations one read can serve: consecutive blocks of one
// SCO, or neighbours that read as zeros.
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

// read is Device.Read of what a view of size bytes names.
func (r *reader) read(ctx context.Context, view *metadata.View, size uint64, p []byte, off int64) error {
	if err := r.within(off, int64(len(p)), size, syscall.EINVAL); err != nil {
		return err
	}
	r.count.read(len(p))
	return r.readBytes(ctx, view, p, off)
}

// readBytes fills p from off: whole clusters at once, and parts of clusters at its ends.
func (r *reader) readBytes(ctx context.Context, view *metadata.View, p []byte, off int64) error {
	if skip := off % sco.ClusterSize; skip != 0 || len(p) < sco.ClusterSize {
		return r.readEdge(ctx, view, p, off, int(skip))
	}
	whole := len(p) / sco.ClusterSize * sco.ClusterSize
	if err := r.readClusters(ctx, view, p[:whole], uint64(off)/sco.ClusterSize); err != nil {
		return err
	}
	if whole < len(p) {
		return r.readEdge(ctx, view, p[whole:], off+int64(whole), 0)
	}
	return nil
}

// readEdge reads the part of one cluster that p begins with, through a buffer of a whole
// cluster, and the rest as readBytes does. skip is where in the cluster off is.
func (r *reader) readEdge(ctx context.Context, view *metadata.View, p []byte, off int64, skip int) error {
	if len(p) == 0 {
		return nil
	}
	cluster := make([]byte, sco.ClusterSize)
	if err := r.readClusters(ctx, view, cluster, uint64(off)/sco.ClusterSize); err != nil {
		return err
	}
	n := copy(p, cluster[skip:])
	return r.readBytes(ctx, view, p[n:], off+int64(n))
}

// readClusters fills p, whole clusters from addr on. If a cluster cannot be read, it may
// have been overwritten since its location was looked up, and its SCO deleted. So its
// location is looked up again, and only a cluster that is still there has failed. If too
// few disks answer, readClusters waits for them.
func (r *reader) readClusters(ctx context.Context, view *metadata.View, p []byte, addr uint64) error {
	var buf, failed [lookups]sco.Location
	n := 0 // locations in failed
	var last error
	var h diskWait
	defer r.waits.end(&h)
	for len(p) > 0 {
		if err := r.gone(); err != nil {
			return err
		}
		locs := buf[:min(len(p)/sco.ClusterSize, lookups)]
		if err := view.Read(ctx, addr, locs); err != nil {
			if err = r.waits.await(ctx, &h, err); err != nil {
				return fmt.Errorf("vDisk %q: %w", r.Name(), err)
			}
			last = nil
			continue
		}
		if last != nil && (ctx.Err() != nil || len(locs) >= n && slices.Equal(locs[:n], failed[:n])) {
			return r.readError(ctx, addr, failed[0], last)
		}
		done, err := r.readLocations(ctx, p, locs)
		p, addr = p[done*sco.ClusterSize:], addr+uint64(done)
		if last = err; err != nil {
			if errors.Is(err, backend.ErrUnavailable) {
				if last = r.waits.await(ctx, &h, err); last != nil {
					return r.readError(ctx, addr, locs[done], last)
				}
				continue
			}
			n = copy(failed[:], locs[done:done+runOf(locs[done:])])
		}
	}
	return nil
}

// readError is the error of a read that failed at the cluster addr, or was given up.
func (r *reader) readError(ctx context.Context, addr uint64, loc sco.Location, cause error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("vDisk %q: read at %d: %w", r.Name(), addr*sco.ClusterSize, err)
	}
	r.log.Error("read failed", "offset", addr*sco.ClusterSize, "location", loc, "err", cause)
	return fmt.Errorf("vDisk %q: read at %d: %w", r.Name(), addr*sco.ClusterSize, errors.Join(syscall.EIO, cause))
}

// readLocations reads the clusters of locs into p and returns how many it did.
func (r *reader) readLocations(ctx context.Context, p []byte, locs []sco.Location) (done int, err error) {
	for done < len(locs) {
		n, err := r.readSome(ctx, p[done*sco.ClusterSize:], locs[done:])
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// readSome reads the first clusters of locs into p and returns how many: at least a run
// (runOf). They come from the write buffer, else from the backend. If it fails, it is the
// run that could not be read.
func (r *reader) readSome(ctx context.Context, p []byte, locs []sco.Location) (int, error) {
	n, loc := runOf(locs), locs[0]
	run := p[:n*sco.ClusterSize]
	if loc.Kind() != sco.KindData {
		clear(run)
		return n, nil
	}
	if loc.Origin() == r.self {
		found, err := r.buf.Read(loc, run, true)
		if found && err == nil {
			return n, nil
		}
		if found {
			// The buffer's copy is bad. If the SCO is stored, the backend's is good.
			r.log.Error("write buffer copy is bad", "location", loc, "err", err)
			berr := r.readBackend(ctx, run, loc)
			switch {
			case berr == nil:
				return n, nil
			case errors.Is(berr, backend.ErrUnavailable):
				return 0, errors.Join(err, berr)
			}
			return 0, err
		}
	}
	// If a spread cannot be read, its runs are read one by one: one of them may have been
	// overwritten and its SCO deleted.
	if spread := spreadOf(locs); spread > n && r.readSpread(ctx, p, locs[:spread]) == nil {
		return spread, nil
	}
	return n, r.readBackend(ctx, run, loc)
}

func (r *reader) extents(ctx context.Context, view *metadata.View, size uint64, off, n int64, fn func(device.Extent) bool) error {
	if err := r.within(off, n, size, syscall.EINVAL); err != nil {
		return err
	}
	first := uint64(off) / sco.ClusterSize
	count := (uint64(off+n)+sco.ClusterSize-1)/sco.ClusterSize - first
	skip, left := off%sco.ClusterSize, n
	if err := r.gone(); err != nil {
		return err
	}
	var h diskWait
	defer r.waits.end(&h)
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
		if err = r.waits.await(ctx, &h, err); err != nil {
			return fmt.Errorf("vDisk %q: %w", r.Name(), err)
		}
	}
}

func (r *reader) prefetch(ctx context.Context, view *metadata.View, size uint64, off, n int64) error {
	if err := r.within(off, n, size, syscall.EINVAL); err != nil {
		return err
	}
	first := uint64(off) / sco.ClusterSize
	return view.Load(ctx, first, (uint64(off+n)+sco.ClusterSize-1)/sco.ClusterSize-first)
}
