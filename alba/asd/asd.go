package asd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"openvstorage/alba/osd"
	"openvstorage/internal/ctxlock"

	"github.com/google/uuid"
	"golang.org/x/sync/semaphore"
)

// ASD is an open store. It implements osd.OSD; all methods are safe for
// concurrent use. Its parts do the work, each with a lock of its own where more than
// one goroutine changes it. Only inspection and ownership call other parts while they
// hold their lock, and nothing that they call takes it.
type ASD struct {
	opt  Options
	lock io.Closer // of the directory; nil: not held yet

	dir         directory
	health      health
	ownership   ownership
	inspection  inspection
	contents    contents
	spares      spares
	reserve     reserve
	space       space
	checkpoints checkpoints
	reader      reader
	appender    appender
	writer      writer
	compactor   compactor
	upkeep      upkeep
	stats       counters

	damage []Damage           // that Open found; never changed afterwards
	tasks  sync.WaitGroup     // background tasks
	cancel context.CancelFunc // ends them
}

var _ osd.OSD = (*ASD)(nil)

// newASD returns an ASD whose parts know each other and hold nothing yet.
func newASD(opt Options) *ASD {
	a := &ASD{opt: opt.withDefaults()}
	o := &a.opt
	a.dir = directory{fs: o.FS, path: o.Dir, log: o.Logger, files: o.Descriptors, patience: o.patience}
	a.dir.ctx, a.cancel = context.WithCancel(context.Background())
	dir, health, contents, stats := &a.dir, &a.health, &a.contents, &a.stats
	a.health.dir = dir
	a.ownership = ownership{dir: dir, health: health, changing: ctxlock.New()}
	a.inspection = inspection{dir: dir, health: health, ownership: &a.ownership, every: o.inspect}
	a.contents.segments = make(map[uint32]*segment)
	a.spares.dir = dir
	a.reserve = reserve{dir: dir, size: roundUp(o.reserveSize())}
	a.space = space{opt: o, dir: dir, contents: contents, spares: &a.spares, reserve: &a.reserve, checkpoints: &a.checkpoints}
	a.checkpoints = checkpoints{dir: dir, health: health, contents: contents, stats: stats}
	a.reader = reader{dir: dir, health: health, contents: contents, stats: stats, onCorrupt: o.OnCorrupt, buffers: make(chan []byte, 64)}
	a.reader.tables.init(o.TableCacheBytes)
	a.appender = appender{
		opt: o, dir: dir, health: health, contents: contents, spares: &a.spares, reserve: &a.reserve, stats: stats, work: &a.upkeep.work,
		nextSeq: 1, header: aligned(nil, blockSize), mark: aligned(nil, blockSize),
	}
	a.writer = writer{
		opt: o, dir: dir, health: health, contents: contents, space: &a.space, spares: &a.spares, reserve: &a.reserve, reader: &a.reader, log: &a.appender,
		queue: make(chan *request, queueMax), room: semaphore.NewWeighted(o.QueueBytes),
		stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	a.compactor = compactor{
		opt: o, dir: dir, health: health, contents: contents, space: &a.space, spares: &a.spares, writer: &a.writer, stats: stats,
	}
	a.upkeep = upkeep{
		opt: o, dir: dir, health: health, contents: contents, spares: &a.spares, reserve: &a.reserve,
		checkpoints: &a.checkpoints, compactor: &a.compactor, writer: &a.writer,
	}
	return a
}

// Open opens the ASD in a directory and brings its index up to date. One
// process at a time can have it open. Damage costs what it hits: Open succeeds
// and Damage tells.
func Open(opt Options) (*ASD, error) {
	a := newASD(opt)
	if err := a.open(); err != nil {
		a.cancel()
		a.closeFiles()
		return nil, fmt.Errorf("asd: open %s: %w", opt.Dir, err)
	}
	go a.writer.run()
	a.tasks.Go(func() { a.upkeep.run(a.dir.ctx) })
	a.upkeep.work.Ring()
	return a, nil
}

func (a *ASD) open() (err error) {
	// First of all: locking would make a file in the directory that an
	// unmounted disk leaves behind.
	id, version, err := readIdentity(a.dir.fs, a.dir.path)
	if err != nil {
		return err
	}
	a.dir.id = id.ID
	if a.lock, err = a.dir.fs.Lock(a.dir.join(LockName)); err != nil {
		return err
	}
	if err := a.ownership.load(id); err != nil {
		return err
	}
	if a.damage, err = a.recover(); err != nil {
		return err
	}
	// Neither is needed to serve what is there: without the first, a copy that is mounted
	// over the disk is not noticed; the second is asked for again.
	if held, err := a.dir.fs.Stat(a.dir.join(LockName)); err == nil {
		a.inspection.hold(held)
	}
	if on, err := a.dir.fs.Statfs(a.dir.path); err == nil {
		a.inspection.check(on)
	}
	a.ownership.migrate(version)
	if a.health.readOnly() == nil {
		a.reserve.make()
	}
	return nil
}

// Close ends all work and writes a checkpoint of the index, so that the next
// Open reads no segment. Applys that wait are refused.
func (a *ASD) Close() error {
	if err := a.health.close(); err != nil {
		return err
	}
	a.ownership.settle()
	a.cancel()
	a.writer.end()
	a.tasks.Wait()
	a.appender.seal()
	var err error
	if a.health.readOnly() == nil && a.contents.stale() {
		err = a.checkpoints.write()
	}
	if err = errors.Join(err, a.closeFiles()); err != nil {
		return fmt.Errorf("asd: close %s: %w", a.opt.Dir, err)
	}
	return nil
}

// closeFiles gives all segments up, whose readers close the files of those that they
// read, and the lock.
func (a *ASD) closeFiles() error {
	for _, s := range a.contents.all() {
		a.dir.giveUp(s)
	}
	a.appender.giveUp()
	if a.lock == nil {
		return nil
	}
	return a.lock.Close()
}

// ID implements osd.OSD.
func (a *ASD) ID() uuid.UUID { return a.dir.id }

// Dir is the ASD's directory.
func (a *ASD) Dir() string { return a.opt.Dir }

// Damage returns what Open found bad that had been synced, the first 1000.
func (a *ASD) Damage() []Damage { return slices.Clone(a.damage) }

// Read implements osd.OSD.
func (a *ASD) Read(ctx context.Context, key []byte, off uint32, p []byte, crcs []uint32) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	a.stats.reads.Add(1)
	if err := checkKey(key); err != nil {
		return fmt.Errorf("asd: read: %w", err)
	}
	if err := a.reader.read(key, off, p, crcs); err != nil {
		return fmt.Errorf("asd: read: %w", err)
	}
	return nil
}

// Stat implements osd.OSD.
func (a *ASD) Stat(ctx context.Context, keys [][]byte) ([]osd.Info, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(keys) > osd.RangeMax {
		return nil, fmt.Errorf("asd: stat: %w: %d keys", osd.ErrInvalid, len(keys))
	}
	for _, key := range keys {
		if err := checkKey(key); err != nil {
			return nil, fmt.Errorf("asd: stat: %w", err)
		}
	}
	if a.health.closed() {
		return nil, fmt.Errorf("asd: stat: %w", osd.ErrClosed)
	}
	return a.contents.stat(keys), nil
}

// Range implements osd.OSD.
func (a *ASD) Range(ctx context.Context, first, last []byte, limit int) ([]osd.Info, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if limit < 0 || limit > osd.RangeMax {
		return nil, fmt.Errorf("asd: range: %w: limit %d", osd.ErrInvalid, limit)
	}
	if a.health.closed() {
		return nil, fmt.Errorf("asd: range: %w", osd.ErrClosed)
	}
	return a.contents.list(first, last, limit), nil
}

// Verify implements osd.OSD.
func (a *ASD) Verify(ctx context.Context, after []byte, limit int) (bad []osd.Bad, next []byte, err error) {
	if limit < 1 {
		return nil, nil, fmt.Errorf("asd: verify: %w: limit %d", osd.ErrInvalid, limit)
	}
	return a.reader.verify(ctx, after, limit)
}

// Usage implements osd.OSD.
func (a *ASD) Usage(ctx context.Context) (osd.Usage, error) {
	if err := ctx.Err(); err != nil {
		return osd.Usage{}, err
	}
	if a.health.closed() {
		return osd.Usage{}, osd.ErrClosed
	}
	u := osd.Usage{Used: a.space.used()}
	u.Keys, u.Absent = a.contents.keys()
	on, err := a.dir.fs.Statfs(a.dir.path)
	if err != nil {
		return osd.Usage{}, fmt.Errorf("asd: %s: %w", a.opt.Dir, err)
	}
	on, u.Trouble = a.inspection.check(on)
	limit, capacity, on := a.space.limitsOn(u.Used, on)
	u.ReadOnly = a.health.readOnly()
	u.Capacity, u.Shared = capacity, on.ID
	u.Full = u.ReadOnly != nil || u.Used+2*blockSize > limit || on.Free < 2*blockSize
	if !u.Full {
		u.Room = min(limit-u.Used, on.Free)
	}
	return u, nil
}
