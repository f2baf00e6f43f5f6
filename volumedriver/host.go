package volumedriver

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"openvstorage/backend"
	"openvstorage/internal/ctxlock"
	"openvstorage/internal/disk"
	"openvstorage/metadata"
	"openvstorage/volumedriver/registry"
	"openvstorage/writebuffer"

	"github.com/google/uuid"
)

// Registry keeps names, owners and epochs. What a method changes is durable when it
// returns. After registry.ErrUnknownOutcome the next call, whatever it is, first finds
// out what became of the earlier one.
type Registry interface {
	Get(ctx context.Context, id uuid.UUID) (registry.Record, error)
	List(ctx context.Context) ([]registry.Record, error)
	Hosts(ctx context.Context) ([]registry.Entry, error)
	Intents(ctx context.Context) ([]registry.Intent, error)

	Begin(ctx context.Context, in registry.Intent) (registry.Intent, error)
	Finish(ctx context.Context, in registry.Intent, r registry.Record) error
	Take(ctx context.Context, id, host uuid.UUID, from uint64) (registry.Intent, error)
	End(ctx context.Context, in registry.Intent) error

	Claim(ctx context.Context, id uuid.UUID, c registry.Claimant, from uint64) (epoch uint64, err error)
	ClaimAll(ctx context.Context, c registry.Claimant, ids []uuid.UUID) (map[uuid.UUID]registry.Record, error)
	RenameAll(ctx context.Context, list []registry.Renaming, beside registry.Beside) error
	MarkDeleting(ctx context.Context, id uuid.UUID, by registry.Holder) error
	Remove(ctx context.Context, id uuid.UUID, by registry.Holder) error
}

// Options configure a Host.
type Options struct {
	FS          disk.FS
	Dir         string        // data directory: DIR/buffer and DIR/map are the host's
	WriteBuffer int64         // bytes; default 2 GiB, at least 64 MiB
	MapCache    int64         // bytes of map pages in memory, for all vDisks; default 256 MiB
	SumsCache   int64         // bytes of checksums of stored SCOs in memory; default 32 MiB
	OpenFiles   int           // files of vDisks in the write buffer open at once; default 1024
	UploadSlots int           // SCOs uploaded side by side, each in memory whole; default 4
	IdleSeal    time.Duration // a vDisk not written for so long is uploaded; default 30 s
	// WidthCheck is how often a vDisk asks the backend about narrow objects, whose
	// bytes it keeps in the write buffer until they are at full width; default 5 s.
	WidthCheck time.Duration
	// ReadWait is how long a read waits at most for disks that it needs, before it
	// fails; 0: for ever; negative: not at all.
	ReadWait time.Duration
	Backend  backend.Store
	// Shared: other processes may keep vDisks of their own in Backend, which Registry does not
	// know. Then a namespace that Registry does not know is never removed.
	Shared   bool
	Registry Registry
	// Host is the UUID of this host, which its data directory keeps. Other hosts may use
	// the same registry and backend. A Host opens, changes and deletes only vDisks that
	// the registry says are this host's. It is never zero.
	Host  uuid.UUID
	Owner string // noted in the registry as the process that opened a vDisk
	// Reached is what Host.Reached returned some time ago. A vDisk whose local files
	// do not reach that far has lost writes: it is halted.
	Reached Reached
	Random  func() uint64 // draws incarnations
	Logger  *slog.Logger
	// OnFull is called again and again while Open waits for room. It must not block.
	OnFull func(error)
	// OnScarce is called each second while the file system of Dir has little room.
	// It must not block. Whatever can free space should do so then.
	OnScarce func()
}

func (o *Options) ensureDefaults() {
	if o.MapCache == 0 {
		o.MapCache = 256 << 20
	}
	if o.SumsCache == 0 {
		o.SumsCache = 32 << 20
	}
	if o.UploadSlots == 0 {
		o.UploadSlots = 4
	}
	if o.IdleSeal == 0 {
		o.IdleSeal = 30 * time.Second
	}
	if o.WidthCheck == 0 {
		o.WidthCheck = 5 * time.Second
	}
	if o.Random == nil {
		o.Random = rand.Uint64
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// claimant is who claims vDisks for this host.
func (o *Options) claimant() registry.Claimant { return registry.Claimant{Host: o.Host, Name: o.Owner} }

// Host is the open vDisks of one data directory. All methods are safe for
// concurrent use. A vDisk that cannot be opened, or that halts, is listed with
// the reason and does not affect the others (P3).
//
// Host ties its parts together; each part has its own state and its own file.
type Host struct {
	opt    Options
	buffer *writebuffer.Buffer
	room   atomic.Pointer[writebuffer.Buffer] // the same, once it is open, for Lacks
	cache  *metadata.Cache
	pages  *pageStore
	sums   sumsCache

	background *background
	table      *table
	elsewhere  *elsewhere
	uploads    *uploads
	doubts     *doubts
	names      *names
	opener     *opener
	lineage    *lineage
	deletion   *deletion
	creation   *creation
}

// Open opens every vDisk of this host, several at a time, clones after their parents. It
// finishes the deletions that an earlier process of this host has begun, and removes what
// that left half made.
func Open(ctx context.Context, opt Options) (*Host, error) {
	if opt.Host == uuid.Nil {
		return nil, errors.New("volumedriver: Options.Host: a host needs a UUID")
	}
	opt.ensureDefaults()
	h := &Host{opt: opt, background: newBackground(), table: newTable(), cache: metadata.NewCache(opt.MapCache)}
	h.uploads = newUploads(opt.UploadSlots, h.table)
	var err error
	h.pages, err = openPages(pageOptions{
		fs: opt.FS, dir: path.Join(opt.Dir, "map"), log: opt.Logger, owner: h.table.owner, failed: h.haltAll, lacks: h.Lacks,
	})
	if err != nil {
		return nil, err
	}
	h.sums = newSumsCache(opt.SumsCache)
	if err := h.openVolumes(ctx); err != nil {
		return nil, errors.Join(err, h.Close(ctx))
	}
	h.background.Go(h.lookForChanges)
	return h, nil
}

// openVolumes opens the write buffer and the vDisks that the registry says are this host's.
func (h *Host) openVolumes(ctx context.Context) (err error) {
	opt := &h.opt
	h.buffer, err = writebuffer.Open(writebuffer.Options{
		FS: opt.FS, Dir: path.Join(opt.Dir, "buffer"), Bytes: opt.WriteBuffer, Files: opt.OpenFiles, Random: opt.Random, Logger: opt.Logger, OnScarce: opt.OnScarce,
		OnPressure: func() { h.uploads.pressure(nil) },
	})
	if err != nil {
		return err
	}
	h.room.Store(h.buffer)
	h.tie()
	mine, err := h.mine(ctx)
	if err != nil {
		return err
	}
	h.opener.openAll(ctx, mine)
	return h.deletion.leftovers(ctx, mine)
}

// mine returns the records of this host's vDisks, and notes the others.
func (h *Host) mine(ctx context.Context) (mine []registry.Record, err error) {
	hosts, err := h.opt.Registry.Hosts(ctx)
	if err != nil {
		return nil, err
	}
	if len(hosts) == 0 && !h.opt.Shared {
		if err := h.deletion.removeOlder(ctx); err != nil {
			return nil, err
		}
	}
	records, err := h.opt.Registry.List(ctx)
	if err != nil {
		return nil, err
	}
	mine, others := h.elsewhere.divide(hosts, records)
	h.table.setForeign(others)
	return mine, nil
}

// tie makes the parts that need the write buffer.
func (h *Host) tie() {
	opt, t, b := &h.opt, h.table, h.background
	h.elsewhere = &elsewhere{me: opt.Host, registry: opt.Registry, table: t, background: b, log: opt.Logger}
	h.doubts = &doubts{registry: opt.Registry, table: t, elsewhere: h.elsewhere, background: b}
	h.names = &names{structure: ctxlock.New(), registry: opt.Registry, table: t, doubts: h.doubts, elsewhere: h.elsewhere}
	h.opener = &opener{host: h, opt: opt, buffer: h.buffer, table: t, doubts: h.doubts, background: b}
	h.lineage = &lineage{table: t, background: b}
	h.deletion = &deletion{
		me: opt.Host, registry: opt.Registry, backend: opt.Backend, shared: opt.Shared, log: opt.Logger, buffer: h.buffer, pages: h.pages, background: b,
		table: t, elsewhere: h.elsewhere, names: h.names, doubts: h.doubts, opener: h.opener, lineage: h.lineage,
	}
	h.creation = &creation{
		owner: opt.claimant(), registry: opt.Registry, backend: opt.Backend, buffer: h.buffer,
		table: t, names: h.names, doubts: h.doubts, opener: h.opener, deletion: h.deletion, lineage: h.lineage, background: b,
	}
}

// haltAll halts every vDisk. It is called when the page store is lost: without one no
// map can grow beyond memory.
func (h *Host) haltAll(err error) {
	for _, v := range h.table.all() {
		v.halt(err)
	}
}

// Lacks tells the host that something found no room on the file system of its
// directory. The write buffer then gives files up, so that nothing has to fail.
func (h *Host) Lacks(err error) {
	if b := h.room.Load(); b != nil {
		b.Lacks(err)
		return
	}
	if h.opt.OnFull != nil {
		h.opt.OnFull(err)
	}
}

// Close stops all vDisks cleanly: everything written is made durable. Devices
// must have been released.
func (h *Host) Close(ctx context.Context) error {
	h.background.stop()
	var errs []error
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, v := range h.table.all() {
		all.Go(func() {
			err := v.close(ctx)
			mu.Lock()
			errs = append(errs, err)
			mu.Unlock()
		})
	}
	all.Wait()
	if h.buffer != nil {
		errs = append(errs, h.buffer.Close())
	}
	errs = append(errs, h.pages.close())
	h.sums.close()
	return errors.Join(errs...)
}
