package faultdisk

import (
	"bytes"
	"io"

	"openvstorage/internal/disk"
)

// File is an open file of an FS. It implements disk.File.
type File struct {
	fs     *FS
	under  disk.File
	name   string
	counts *counters
	extent *extent
}

// Name returns the name the file was opened by.
func (f *File) Name() string { return f.name }

func (f *File) begin(op Op) *Rule {
	f.counts.ops[op.index()].Add(1)
	return f.fs.consult(op, f.name)
}

// Close closes the file, also where a rule makes it fail.
func (f *File) Close() error {
	r := f.begin(Close)
	err := f.under.Close()
	if r.Err != nil {
		return fail(Close, f.name, r.Err)
	}
	return err
}

// ReadAt reads; see disk.File.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	return f.read(Read, f.under.ReadAt, p, off)
}

// TryReadAt reads what is in memory; see disk.File. A rule whose Err is
// disk.ErrWouldBlock makes it return that, bare.
func (f *File) TryReadAt(p []byte, off int64) (int, error) {
	return f.read(TryRead, f.under.TryReadAt, p, off)
}

func (f *File) read(op Op, read func([]byte, int64) (int, error), p []byte, off int64) (int, error) {
	r := f.begin(op)
	if r.Err != nil {
		n := 0
		if k := min(int64(len(p)), r.Short); k > 0 {
			n, _ = read(p[:k], off)
			f.counts.read.Add(int64(n))
		}
		if r.Err == disk.ErrWouldBlock || r.Err == io.EOF {
			return n, r.Err
		}
		return n, fail(op, f.name, r.Err)
	}
	n, err := read(p, off)
	f.counts.read.Add(int64(n))
	if r.Corrupt != nil {
		r.Corrupt(p[:n])
	}
	return n, err
}

// WriteAt writes; see disk.File.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	return f.write([][]byte{p}, off)
}

// WritevAt writes; see disk.File.
func (f *File) WritevAt(bufs [][]byte, off int64) (int, error) {
	return f.write(bufs, off)
}

func (f *File) write(bufs [][]byte, off int64) (int, error) {
	var total int64
	for _, b := range bufs {
		total += int64(len(b))
	}
	r := f.begin(Write)
	if r.Drop && r.Err == nil {
		return int(total), nil
	}
	allowed, err := f.allow(Write, r, off, total)
	if r.Corrupt != nil {
		bufs = [][]byte{bytes.Join(bufs, nil)}
		r.Corrupt(bufs[0])
	}
	if allowed < total {
		bufs = [][]byte{bytes.Join(bufs, nil)[:allowed]}
	}
	n := 0
	if allowed > 0 || err == nil {
		var failed error
		if n, failed = f.under.WritevAt(bufs, off); failed != nil {
			err = failed
		}
		f.counts.written.Add(int64(n))
	}
	return n, err
}

// allow says how much of a write or prewrite of n bytes happens, and what is
// returned after it.
func (f *File) allow(op Op, r *Rule, off, n int64) (int64, error) {
	err := r.Err
	if err != nil {
		n = max(0, min(n, r.Short))
	}
	if off >= 0 && n > 0 {
		end, full := f.fs.room.claim(f.extent, off+n)
		if full != nil {
			n, err = max(0, end-off), full
		}
	}
	if err != nil {
		err = fail(op, f.name, err)
	}
	return n, err
}

// Datasync syncs; see disk.File.
func (f *File) Datasync() error { return f.sync(Datasync, f.under.Datasync) }

// Sync syncs; see disk.File.
func (f *File) Sync() error { return f.sync(Sync, f.under.Sync) }

func (f *File) sync(op Op, sync func() error) error {
	r := f.begin(op)
	if r.Err != nil {
		f.syncFailed()
		return fail(op, f.name, r.Err)
	}
	if r.Drop {
		return nil
	}
	return sync()
}

// syncFailed tells a disk that models it.
func (f *File) syncFailed() {
	if u, ok := f.under.(interface{ SyncFailed() }); ok {
		u.SyncFailed()
	}
}

// Prewrite prewrites; see disk.File. A failing one writes Short bytes, or what
// the quota leaves, and does not sync them.
func (f *File) Prewrite(off, n int64) error {
	r := f.begin(Prewrite)
	if r.Drop && r.Err == nil {
		return nil
	}
	allowed, err := f.allow(Prewrite, r, off, n)
	if err == nil {
		if err := f.under.Prewrite(off, n); err != nil {
			return err
		}
		f.counts.written.Add(n)
		return nil
	}
	k, failed := f.writeZeros(off, allowed)
	f.counts.written.Add(k)
	if failed != nil {
		return failed
	}
	return err
}

func (f *File) writeZeros(off, n int64) (int64, error) {
	zeros := make([]byte, min(n, 1<<20))
	var done int64
	for done < n {
		k, err := f.under.WriteAt(zeros[:min(n-done, int64(len(zeros)))], off+done)
		done += int64(k)
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// Allocate takes room of the quotas, all of it or none; see disk.File.
func (f *File) Allocate(off, n int64) error {
	r := f.begin(Allocate)
	if r.Err != nil {
		return fail(Allocate, f.name, r.Err)
	}
	if r.Drop {
		return nil
	}
	if err := f.fs.room.allocate(f.extent, off+n); err != nil {
		return fail(Allocate, f.name, err)
	}
	return f.under.Allocate(off, n)
}

// Writeback asks for writing; see disk.File.
func (f *File) Writeback(off, n int64) error {
	if r := f.begin(Writeback); r.Err != nil {
		return fail(Writeback, f.name, r.Err)
	}
	return f.under.Writeback(off, n)
}

// Truncate sets the length; see disk.File. A longer file takes its room from
// the quotas as if it had been written, but never fails for it.
func (f *File) Truncate(size int64) error {
	r := f.begin(Truncate)
	if r.Err != nil {
		return fail(Truncate, f.name, r.Err)
	}
	if r.Drop {
		return nil
	}
	if err := f.under.Truncate(size); err != nil {
		return err
	}
	f.fs.room.resize(f.extent, size)
	return nil
}

// Size returns the length; see disk.File.
func (f *File) Size() (int64, error) {
	if r := f.begin(Size); r.Err != nil {
		return 0, fail(Size, f.name, r.Err)
	}
	return f.under.Size()
}
