package transport

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"time"

	"openvstorage/internal/disk"
	"openvstorage/internal/wire"

	"golang.org/x/sync/errgroup"
)

// How a snapshot is fetched.
const (
	filesAtOnce = 2
	readsAtOnce = 4 // of each file; each takes readMax of memory
	triesOfFile = 3 // then a file whose sum differs is given up
	partSuffix  = ".part"
)

// errDiffers is matched by the error for a file that is not what the other member has.
var errDiffers = errors.New("it is not what the other member has")

// fetch is one call of Transport.Fetch.
type fetch struct {
	t        *Transport
	from     uint64
	id       SnapshotID
	dir      string
	redialer *wire.Redialer
}

// Fetch brings the files of another member's snapshot into dir, which it makes if need be.
// A file that is there with the right length and sum, from an earlier try, is kept; others
// are read anew. What else is in dir is left alone. When Fetch returns nil all files are
// there, their sums compared with those that the other member gives, as they are read back,
// and durable with their names. It is an arakoon.Fetcher.
//
// It reads at Maintenance priority over a connection of its own, at most Options.FetchRate
// bytes a second. If the connection breaks it dials again and goes on where it was. It
// fails when ctx ends; after Options.FetchWait without progress; if the snapshot is gone
// (ErrSnapshot); and if the disk does, with the disk's error.
//
// The order of durable steps: a file is written under its name with ".part"; synced; read
// back and its sum compared with the other member's; and only then renamed. So a name
// without ".part" never stands for a part of a file, whenever the power fails, and even so a
// later Fetch believes none without comparing sums. The directory is synced at the end: names
// that were lost before cost their files another read.
func (t *Transport) Fetch(ctx context.Context, from uint64, id SnapshotID, dir string) error {
	if err := t.fetch(ctx, from, id, dir); err != nil {
		return fmt.Errorf("transport: fetch snapshot %v of member %d into %s: %w", id, from, dir, err)
	}
	return nil
}

// Hold has member from keep a snapshot that is needed still: it asks for the list of its
// files once. The error is that of Fetch.
func (t *Transport) Hold(ctx context.Context, from uint64, id SnapshotID) error {
	f, err := t.fetching(from, id, "")
	if err != nil {
		return err
	}
	defer f.redialer.Close()
	if _, err := f.list(ctx); err != nil {
		return fmt.Errorf("transport: hold snapshot %v of member %d: %w", id, from, err)
	}
	return nil
}

func (t *Transport) fetching(from uint64, id SnapshotID, dir string) (*fetch, error) {
	r, err := wire.NewRedialer(wire.RedialOptions{
		Target: func(ctx context.Context) (wire.DialOptions, error) { return t.target(ctx, from) },
		First:  t.o.Redial, Most: t.o.Most,
	})
	return &fetch{t, from, id, dir, r}, err
}

func (t *Transport) fetch(ctx context.Context, from uint64, id SnapshotID, dir string) error {
	if t.o.FS == nil {
		return errors.New("Options.FS was not given")
	}
	if err := disk.MakeDir(t.o.FS, dir, 0o700); err != nil {
		return err
	}
	f, err := t.fetching(from, id, dir)
	if err != nil {
		return err
	}
	defer f.redialer.Close()
	files, err := f.list(ctx)
	if err != nil {
		return fmt.Errorf("list of files: %w", err)
	}
	all, allCtx := errgroup.WithContext(ctx)
	all.SetLimit(filesAtOnce)
	for _, file := range files {
		if allCtx.Err() != nil {
			break
		}
		all.Go(func() error {
			if err := f.file(allCtx, file); err != nil {
				return fmt.Errorf("file %q: %w", file.Name, err)
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil { // before all files were begun
		return err
	}
	return t.o.FS.SyncDir(dir)
}

// file makes a file be there, whole and durable but for its name.
func (f *fetch) file(ctx context.Context, file SnapshotFile) error {
	name := path.Join(f.dir, file.Name)
	there, err := f.have(ctx, name, file)
	for i := 0; !there && (err == nil || errors.Is(err, errDiffers)) && i < triesOfFile; i++ {
		err = f.bring(ctx, name, file)
		there = err == nil
	}
	return err
}

// have reports whether a file is there from an earlier try.
func (f *fetch) have(ctx context.Context, name string, file SnapshotFile) (bool, error) {
	fsys := f.t.o.FS
	switch info, err := fsys.Stat(name); {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case info.Size() != file.Size:
		return false, nil
	}
	h, err := fsys.OpenFile(name, 0, 0)
	if err != nil {
		return false, err
	}
	defer h.Close()
	err = compare(ctx, h, file)
	return err == nil, err
}

// bring reads a file from the other member, under a name of its own, and gives it its name
// once it is durable and right.
func (f *fetch) bring(ctx context.Context, name string, file SnapshotFile) (err error) {
	fsys := f.t.o.FS
	h, err := fsys.OpenFile(name+partSuffix, disk.Write|disk.Create|disk.Truncate, 0o600)
	if err != nil {
		return err
	}
	err = f.fill(ctx, h, file)
	if err == nil {
		if err = h.Datasync(); err != nil { // nobody may sync it again and believe that
			return errors.Join(err, h.Close(), fsys.Remove(name+partSuffix))
		}
		err = compare(ctx, h, file)
	}
	if err = errors.Join(err, h.Close()); err != nil {
		return err
	}
	return fsys.Rename(name+partSuffix, name)
}

// fill reads the bytes of a file, several pieces at a time.
func (f *fetch) fill(ctx context.Context, h disk.File, file SnapshotFile) error {
	all, allCtx := errgroup.WithContext(ctx)
	all.SetLimit(readsAtOnce)
	for off := int64(0); off < file.Size; off += readMax {
		n := int(min(readMax, file.Size-off))
		if err := f.t.pace.wait(allCtx, n); err != nil {
			break
		}
		all.Go(func() error {
			a := asking{name: file.Name, offset: uint64(off), bytes: uint32(n)}
			return f.call(allCtx, opSnapshotRead, a, func(r *wire.Reply) error {
				if len(r.Body) != n {
					return fmt.Errorf("%w: %d bytes at %d instead of %d", ErrCorrupt, len(r.Body), off, n)
				}
				_, err := h.WriteAt(r.Body, off)
				return err
			})
		})
	}
	if err := all.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx) // not all pieces were begun
}

// compare reads a file that is here, and compares it with the other member's.
func compare(ctx context.Context, h disk.File, file SnapshotFile) error {
	sum, err := sumFile(ctx, file.Size, h.ReadAt)
	if err == nil && sum != file.CRC {
		err = fmt.Errorf("%w: its sum is %08x, there %08x", errDiffers, sum, file.CRC)
	}
	return err
}

func (f *fetch) list(ctx context.Context) (files []SnapshotFile, err error) {
	err = f.call(ctx, opSnapshotList, asking{}, func(r *wire.Reply) (err error) {
		files, err = decodeFiles(r.Header, r.Body)
		return err
	})
	return files, err
}

// call asks the other member something, again and again until it answers, and gives the
// answer to use. What is asked changes nothing, so that it may be asked twice.
func (f *fetch) call(ctx context.Context, op uint16, a asking, use func(*wire.Reply) error) error {
	a.from, a.to, a.id = f.t.o.Member, f.from, f.id
	header := a.append(nil)
	ctx, cancel := context.WithTimeoutCause(ctx, f.t.o.FetchWait, fmt.Errorf("member %d did not answer within %v", f.from, f.t.o.FetchWait))
	defer cancel()
	for wait := f.t.o.Redial; ; wait = min(2*wait, f.t.o.Most) {
		r, err := f.redialer.CallWait(ctx, wire.Request{Op: op, Priority: wire.Maintenance, Header: header})
		if err == nil {
			if r.Status != uint16(wire.CodeOK) {
				err = refusal(r)
			} else {
				err = use(r)
			}
			r.Release()
			return err
		}
		if ctx.Err() != nil || errors.Is(err, wire.ErrUnknownOp) || errors.Is(err, wire.ErrDenied) {
			return err
		}
		if err := sleep(ctx, wait/2+rand.N(wait/2+time.Nanosecond)); err != nil {
			return err
		}
	}
}
