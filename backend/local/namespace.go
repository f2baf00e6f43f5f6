package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"strconv"
	"strings"

	"openvstorage/backend"
	"openvstorage/internal/disk"
)

// namespace is a handle. Each call looks its name up.
type namespace struct {
	s    *Store
	name string
}

var (
	_ backend.Store     = (*Store)(nil)
	_ backend.Namespace = (*namespace)(nil)
)

// Namespace implements backend.Store.
func (s *Store) Namespace(name string) backend.Namespace { return &namespace{s, name} }

// begin makes the checks that every call needs, and returns the namespace. names are
// those of the objects that the call will touch.
func (n *namespace) begin(ctx context.Context, change bool, names ...string) (*space, error) {
	check := n.s.ready
	if change {
		check = n.s.writable
	}
	if err := check(ctx); err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := backend.CheckName(name); err != nil {
			return nil, err
		}
	}
	return n.s.space(n.name)
}

// Get implements backend.Namespace. If the object is in the cache, Get is one read of
// its file.
func (n *namespace) Get(ctx context.Context, name string, p []byte, off int64) (int, error) {
	if err := n.s.ready(ctx); err != nil {
		return 0, err
	}
	sp, err := n.s.space(n.name)
	if err != nil {
		return 0, err
	}
	o, err := n.s.open(sp, name)
	if err != nil {
		return 0, err
	}
	defer n.s.cache.release(o)
	return o.readAt(n.s.pool, p, off)
}

// Stat implements backend.Namespace.
func (n *namespace) Stat(ctx context.Context, name string) (backend.Info, error) {
	sp, err := n.begin(ctx, false, name)
	if err != nil {
		return backend.Info{}, err
	}
	o, err := n.s.open(sp, name)
	if err != nil {
		return backend.Info{}, err
	}
	defer n.s.cache.release(o)
	return backend.Info{Name: name, Size: o.size, Version: o.version}, nil
}

// List implements backend.Namespace. It opens no object: sizes follow from
// the lengths of the files, versions are left out.
func (n *namespace) List(ctx context.Context, prefix string, fn func(backend.Info) bool) error {
	sp, err := n.begin(ctx, false)
	if err != nil {
		return err
	}
	names, err := n.s.fs.ReadDir(sp.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s", backend.ErrNamespaceNotFound, n.name)
	}
	if err != nil {
		return fmt.Errorf("list namespace: %w", err)
	}
	for _, name := range names {
		if !strings.HasPrefix(name, prefix) || backend.CheckName(name) != nil {
			continue
		}
		fi, err := n.s.fs.Stat(sp.path(name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted meanwhile
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		size, _, _ := sizes(fi.Size())
		if !fn(backend.Info{Name: name, Size: size}) {
			return nil
		}
	}
	return nil
}

// Put implements backend.Namespace.
func (n *namespace) Put(ctx context.Context, name string, data []byte) error {
	n.s.changing.RLock()
	defer n.s.changing.RUnlock()
	sp, err := n.begin(ctx, true, name)
	if err != nil {
		return err
	}
	done, err := n.putAgain(sp, name, data) // first, as a retry then writes nothing
	if done || err != nil {
		return err
	}
	tmp, err := n.stage(ctx, name, data, newVersion())
	if err != nil {
		return failure(fmt.Sprintf("put %s/%s", n.name, name), err)
	}
	defer n.s.fs.Remove(tmp)
	for {
		err := n.create(sp, name, tmp, fileSize(int64(len(data))))
		if err == nil {
			return n.syncNames(sp)
		}
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		done, err := n.putAgain(sp, name, data)
		if done || err != nil {
			return err
		}
		// The object that had taken the name was deleted before putAgain read it.
		if err := n.s.writable(ctx); err != nil {
			return err
		}
	}
}

// putAgain does a put whose name is taken. It returns nil if the object has equal bytes,
// else ErrExists. done is false if the name is free.
func (n *namespace) putAgain(sp *space, name string, data []byte) (done bool, err error) {
	o, err := n.s.open(sp, name)
	if errors.Is(err, backend.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer n.s.cache.release(o)
	same, err := o.holds(n.s.pool, data)
	if err != nil {
		return false, err
	}
	if !same {
		return false, fmt.Errorf("%w: %s/%s", backend.ErrExists, n.name, name)
	}
	// The put that created the object may not have synced its name.
	return true, n.syncNames(sp)
}

// create gives the staged file its name, and fails with fs.ErrExist if that is taken.
func (n *namespace) create(sp *space, name, tmp string, size int64) error {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.gone {
		return fmt.Errorf("%w: %s", backend.ErrNamespaceNotFound, n.name)
	}
	if err := n.s.fs.Link(tmp, sp.path(name)); err != nil {
		return failure("name object", err)
	}
	sp.used += size
	sp.changes.Add(1)
	return nil
}

// syncNames makes the names in the namespace durable.
func (n *namespace) syncNames(sp *space) error {
	sp.mu.Lock()
	gone, want := sp.gone, sp.changes.Load()
	sp.mu.Unlock()
	if gone {
		return fmt.Errorf("%w: %s", backend.ErrNamespaceNotFound, n.name)
	}
	return sp.sync(n.s, want)
}

// stageChunk is how many bytes are checksummed and written at a time.
const stageChunk = 1 << 20

// stage writes an object to a synced temporary file and returns its name. If
// it fails, nothing is left.
func (n *namespace) stage(ctx context.Context, name string, data []byte, v backend.Version) (string, error) {
	tmp := path.Join(n.s.dir, tmpName, strconv.FormatUint(n.s.temps.Add(1), 10))
	f, err := n.s.fs.OpenFile(tmp, disk.Write|disk.Create|disk.Exclusive|direct(data), 0o600)
	if err != nil {
		return "", err
	}
	err = writeObject(ctx, f, data, incarnation(n.name, name), v)
	if err == nil {
		err = f.Datasync() // a failure is final: the file is thrown away
	}
	if err = errors.Join(err, f.Close()); err != nil {
		n.s.fs.Remove(tmp)
		return "", err
	}
	return tmp, nil
}

// directMin is the size in bytes from which an object is written past the page cache: it
// is not read soon, and its pages would push out others that are.
const directMin = 256 << 10

func direct(data []byte) disk.Flag {
	if len(data) < directMin {
		return 0
	}
	return disk.Direct
}

// writeObject writes the data, the CRC table and the trailer. Long stretches of
// zeros are left out: they read as zeros from the hole.
func writeObject(ctx context.Context, f disk.File, data []byte, inc uint64, v backend.Version) error {
	size := int64(len(data))
	tail := make([]byte, 0, fileSize(size)-size)
	seed := seedState(inc)
	if len(data) >= directMin {
		if err := f.Truncate(fileSize(size)); err != nil {
			return err
		}
	}
	var off int64
	for size-off > stageChunk {
		if err := ctx.Err(); err != nil {
			return err
		}
		part := data[off : off+stageChunk]
		tail = appendTable(tail, seed, part)
		if err := writeBlocks(f, part, off); err != nil {
			return err
		}
		off += stageChunk
	}
	tail = appendTable(tail, seed, data[off:])
	tail = appendTrailer(tail, inc, v, size, tail)
	whole := (size - off) / blockSize * blockSize
	if err := writeBlocks(f, data[off:off+whole], off); err != nil {
		return err
	}
	off += whole
	_, err := f.WritevAt([][]byte{data[off:], tail}, off)
	return err
}

var zeroBlock [blockSize]byte

// gapMin is how many bytes of zeros are left out as a hole. Leaving them out costs one
// more write, about as much as writing gapMin bytes within a longer write.
const gapMin = 64 << 10

// writeBlocks writes whole blocks in runs, without long stretches of zeros.
func writeBlocks(f disk.File, p []byte, off int64) error {
	for from := 0; from < len(p); {
		if bytes.Equal(p[from:from+blockSize], zeroBlock[:]) {
			from += blockSize
			continue
		}
		end, zeros := from+blockSize, 0 // of the run, and behind it
		for at := end; at < len(p) && zeros < gapMin; at += blockSize {
			if bytes.Equal(p[at:at+blockSize], zeroBlock[:]) {
				zeros += blockSize
				continue
			}
			end, zeros = at+blockSize, 0
		}
		if _, err := f.WriteAt(p[from:end], off+int64(from)); err != nil {
			return err
		}
		from = end
	}
	return nil
}

// newVersion draws a version. Versions are random: counted ones would need a record of
// objects that were deleted. That an object gets the same version twice is as unlikely
// as that a damaged object passes its checksums.
func newVersion() backend.Version {
	for {
		if v := rand.Uint64(); v != 0 {
			return backend.Version(v)
		}
	}
}

// versionLocked returns the object's version and the length of its file, both 0 if it is
// absent. The caller holds sp.mu.
func (n *namespace) versionLocked(sp *space, name string) (backend.Version, int64, error) {
	o, err := n.s.open(sp, name)
	if errors.Is(err, backend.ErrNotFound) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	defer n.s.cache.release(o)
	return o.version, fileSize(o.size), nil
}

// assertLocked returns ErrConflict unless the object has the version want. The caller
// holds sp.mu, so that the version does not change meanwhile.
func (n *namespace) assertLocked(sp *space, name string, want backend.Version) (length int64, err error) {
	if sp.gone {
		return 0, fmt.Errorf("%w: %s", backend.ErrNamespaceNotFound, n.name)
	}
	have, length, err := n.versionLocked(sp, name)
	if err != nil {
		return 0, err
	}
	if have != want {
		return 0, fmt.Errorf("%w: %s/%s is at %d, not %d", backend.ErrConflict, n.name, name, have, want)
	}
	return length, nil
}

// PutIf implements backend.Namespace.
func (n *namespace) PutIf(ctx context.Context, name string, data []byte, version backend.Version) (backend.Version, error) {
	n.s.changing.RLock()
	defer n.s.changing.RUnlock()
	sp, err := n.begin(ctx, true, name)
	if err != nil {
		return 0, err
	}
	v := newVersion()
	tmp, err := n.stage(ctx, name, data, v)
	if err != nil {
		return 0, failure(fmt.Sprintf("put %s/%s", n.name, name), err)
	}
	defer n.s.fs.Remove(tmp) // nothing is there after a rename
	sp.mu.Lock()
	defer sp.mu.Unlock()
	old, err := n.assertLocked(sp, name, version)
	if err != nil {
		return 0, err
	}
	if version == 0 {
		err = n.s.fs.Link(tmp, sp.path(name))
	} else {
		err = n.s.fs.Rename(tmp, sp.path(name))
	}
	if err != nil {
		return 0, failure("name object", err)
	}
	n.s.cache.drop(objectKey{sp, name})
	sp.used += fileSize(int64(len(data))) - old
	if err := sp.sync(n.s, sp.changes.Add(1)); err != nil {
		return 0, err
	}
	return v, nil
}

// Delete implements backend.Namespace.
func (n *namespace) Delete(ctx context.Context, names []string, cond *backend.Condition) error {
	n.s.changing.RLock()
	defer n.s.changing.RUnlock()
	sp, err := n.begin(ctx, true, names...)
	if err != nil {
		return err
	}
	if cond != nil {
		if err := backend.CheckName(cond.Name); err != nil {
			return err
		}
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.gone {
		return fmt.Errorf("%w: %s", backend.ErrNamespaceNotFound, n.name)
	}
	if cond != nil { // P4: no put comes between this and the removal
		if _, err := n.assertLocked(sp, cond.Name, cond.Version); err != nil {
			return err
		}
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := n.removeLocked(sp, name); err != nil {
			return fmt.Errorf("delete object: %w", err)
		}
	}
	return sp.sync(n.s, sp.changes.Load())
}

func (n *namespace) removeLocked(sp *space, name string) error {
	var length int64
	fi, err := n.s.fs.Stat(sp.path(name))
	if err == nil {
		length = fi.Size()
		err = n.s.fs.Remove(sp.path(name))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	n.s.cache.drop(objectKey{sp, name})
	sp.used -= length
	sp.changes.Add(1)
	return nil
}
