package writebuffer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"sync"
	"sync/atomic"

	"openvstorage/internal/disk"

	"github.com/google/uuid"
)

// Limits of Options.Bytes and of the SCO size that follows from it.
const (
	BytesDefault = 2 << 30
	BytesMin     = 64 << 20
	scoSizeMax   = 16 << 20
	scoShare     = 16 // an SCO is at most this share of the buffer
	tlogShare    = 8  // a TLog closes at this share of the buffer
	pressureFill = 0.5

	FilesDefault = 1024
	FilesMin     = 16
)

// rawSuffix marks files of the pool that are not pre-written.
const rawSuffix = ".raw"

// Options configure a Buffer.
type Options struct {
	FS    disk.FS
	Dir   string
	Bytes int64 // bytes of SCO files on disk at most; default 2 GiB, at least 64 MiB
	Ready int   // free files kept pre-written ahead of need; default 8
	// Files bounds how many files of vDisks are open; default 1024, at least 16. A
	// vDisk that is being written needs two to four, one that rests none.
	Files  int
	Random func() uint64
	Logger *slog.Logger
	// OnScarce is called each second while the file system has little room; must
	// not block.
	OnScarce func()
	// OnPressure is called when a writer waits for a file and no file can be evicted:
	// the caller should close TLogs so that more gets stored. It is called without
	// locks, by several at a time, and must not block.
	OnPressure func()
}

// Buffer is the write buffer of one directory. Safe for concurrent use.
//
// It ties its parts, each of which owns its state: the pool of files with the room
// that there is for them, the stored SCOs that may be evicted, the open logs, the
// bound of open files, the durable names.
type Buffer struct {
	opt       Options
	files     *openFiles
	names     *names
	logs      *logs
	evictable *evictable
	pool      *pool

	dirty     atomic.Int64 // SCO files that may not be evicted
	toldFiles atomic.Int64 // when it was logged that somebody waits for a descriptor, Unix nanoseconds
	stop      context.CancelFunc
	done      sync.WaitGroup
}

// ErrClosed is returned after Close.
var ErrClosed = errors.New("writebuffer: closed")

// Open takes the directory. Files that vDisks left in it stay until OpenLog or Discard
// is called for the vDisk.
func Open(opt Options) (*Buffer, error) {
	if opt.Bytes == 0 {
		opt.Bytes = BytesDefault
	}
	if opt.Bytes < BytesMin {
		return nil, fmt.Errorf("write buffer of %d bytes: it needs at least %d", opt.Bytes, BytesMin)
	}
	if opt.Ready == 0 {
		opt.Ready = 8
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.Files == 0 {
		opt.Files = FilesDefault
	}
	files := newOpenFiles(patientFS{opt.FS}, max(opt.Files, FilesMin))
	opt.FS = files
	b := &Buffer{opt: opt, files: files, names: newNames(files), evictable: newEvictable(opt.Logger)}
	b.logs = &logs{pressed: opt.OnPressure, open: make(map[uuid.UUID]*Log)}
	if err := b.openPool(); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	b.stop = stop
	b.pool.measure()
	b.done.Go(func() { b.pool.prewriter.run(ctx) })
	b.done.Go(func() { b.pool.watchRoom(ctx, opt.OnScarce) })
	return b, nil
}

// openPool makes the directories, durably, and a pool that knows the files in them.
func (b *Buffer) openPool() error {
	fsys, dir := b.opt.FS, b.opt.Dir
	if err := fsys.MkdirAll(path.Join(dir, poolName), 0o700); err != nil {
		return err
	}
	p, err := b.newPool()
	if err != nil {
		return err
	}
	// With a lost name of the buffer itself, all that was flushed to it is lost.
	for _, dir := range []string{dir, path.Dir(dir)} {
		if err := fsys.SyncDir(dir); err != nil {
			return err
		}
	}
	b.pool = p
	if err := p.adopt(); err != nil {
		return err
	}
	return b.countVolumes()
}

// newPool makes an empty pool for SCOs of a size for which there is room.
func (b *Buffer) newPool() (*pool, error) {
	dir := path.Join(b.opt.Dir, poolName)
	u, err := b.opt.FS.Statfs(b.opt.Dir)
	if err != nil {
		return nil, err
	}
	have, err := b.size(dir)
	if err != nil {
		return nil, err
	}
	size := shape(b.opt.Bytes, have, u)
	p := &pool{fs: b.opt.FS, dir: dir, scoSize: size, names: b.names, logs: b.logs, evictable: b.evictable, log: b.opt.Logger}
	p.prewriter.pool, p.prewriter.ready = p, b.opt.Ready
	p.room.begin(b.opt.Dir, size, b.opt.Bytes, b.opt.Logger)
	return p, nil
}

const poolName = "pool"

// SCOSize is the size of an SCO file in bytes.
func (b *Buffer) SCOSize() int64 { return b.pool.scoSize }

// TLogBytes is how many bytes of SCOs a TLog covers before it closes: a share
// of the buffer, and less when the buffer fills, so that files come free in
// smaller steps and nobody waits long for one.
func (b *Buffer) TLogBytes() int64 {
	if b.Fill() >= pressureFill {
		return b.Bytes() / tlogShare / 4
	}
	return b.Bytes() / tlogShare
}

// Bytes is the size of the buffer: what its file system has room for, at most
// Options.Bytes.
func (b *Buffer) Bytes() int64 {
	if n, less := b.pool.narrowed(); less {
		return n
	}
	return b.opt.Bytes
}

// Fill is the share of the buffer that waits for the backend: 0 to 1, or more when
// its file system has less room than it had.
func (b *Buffer) Fill() float64 {
	dirty := float64(b.dirty.Load()) * float64(b.pool.scoSize)
	return dirty / float64(max(b.Bytes(), b.pool.scoSize))
}

// Waiting reports whether a writer waits for room, or the file system lacks some.
func (b *Buffer) Waiting() bool { return b.pool.short() }

// Usage is what the buffer holds now.
type Usage struct {
	Bytes     int64 // of SCO files on disk
	Limit     int64 // what the file system has room for, at most Wanted
	Wanted    int64 // Options.Bytes
	Dirty     int64 // of files that may not be evicted
	Free      int64 // of files in the pool
	Evictable int64
	Narrow    int64 // of files whose objects are not at full width, evicted after all others
	// EvictedNarrow is how many bytes of such files had to go all the same.
	EvictedNarrow int64
	// Lacks is why files cannot be made for want of room, nil if they can.
	Lacks error

	// Files are the files of vDisks that are open, FilesLimit how many may be, and
	// FilesClosed how many were closed for the sake of others.
	Files, FilesLimit int
	FilesClosed       uint64
}

// Usage returns what the buffer holds now, in bytes.
func (b *Buffer) Usage() Usage {
	u := b.pool.usage()
	size := b.SCOSize()
	wide, narrow, evicted := b.evictable.count()
	u.Limit, u.Wanted, u.Dirty = b.Bytes(), b.opt.Bytes, b.dirty.Load()*size
	u.Evictable, u.Narrow, u.EvictedNarrow = int64(wide)*size, int64(narrow)*size, evicted*size
	u.Files, u.FilesLimit, u.FilesClosed = b.files.usage()
	return u
}

// Lacks tells the buffer that somebody else found no room on its file system. The
// buffer then gives up some of its own files.
func (b *Buffer) Lacks(err error) { b.pool.lacks(err) }

// Close stops the background work. Logs must have been closed.
func (b *Buffer) Close() error {
	b.pool.close()
	b.stop()
	b.done.Wait()
	return nil
}
