package volumedriver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"openvstorage/backend"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/pebblefs"
	"openvstorage/metadata"
	"openvstorage/metadata/pebblestore"
	"openvstorage/volumedriver/catalog"
	"openvstorage/volumedriver/registry"
	"openvstorage/writebuffer"

	"github.com/google/uuid"
	"github.com/maypok86/otter/v2"
)

// Registry is where names, owners and epochs are kept. Methods are durable on
// return. After registry.ErrUnknownOutcome each later call finds out first what
// became of the earlier one.
type Registry interface {
	Get(ctx context.Context, id uuid.UUID) (registry.Record, error)
	List(ctx context.Context) ([]registry.Record, error)
	Register(ctx context.Context, r registry.Record) error
	RenameAll(ctx context.Context, list []registry.Renaming, along []registry.Swap) error
	Claim(ctx context.Context, id uuid.UUID, owner string) (epoch uint64, err error)
	MarkDeleting(ctx context.Context, id uuid.UUID) error
	Remove(ctx context.Context, id uuid.UUID) error
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
	// WidthCheck is how often a vDisk asks whether objects whose bytes it keeps,
	// because they were below full width, have it by now; default 5 s.
	WidthCheck time.Duration
	// ReadWait is how long a read waits, at most, for disks without which it cannot be
	// made, until it fails; 0: for ever; negative: not at all.
	ReadWait time.Duration
	Backend  backend.Store
	Registry Registry
	Owner    string // says in the registry who opened a vDisk
	// Reached is what Host.Reached said some time ago. A vDisk that does not reach
	// as far has lost something, and is not opened as if it had not.
	Reached Reached
	Random  func() uint64 // draws incarnations
	Logger  *slog.Logger
	// OnFull is called again and again while Open waits for room; must not block.
	OnFull func(error)
	// OnScarce is called each second while the file system of Dir has little room;
	// must not block. Whoever can give some up should.
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

// Host is the open vDisks of one data directory. All methods are safe for
// concurrent use. A vDisk that cannot be opened, or that halts, is listed with
// the reason and leaves the others alone (P3).
type Host struct {
	opt    Options
	buffer *writebuffer.Buffer
	room   atomic.Pointer[writebuffer.Buffer] // the same, for those who lack room, once it is open
	cache  *metadata.Cache
	store  *pebblestore.Store // local pages
	pages  *pageStore         // local pages, with the backend behind them
	files  *pebblefs.FS
	sums   *otter.Cache[sumsKey, sums]
	slots  chan []byte

	living     context.Context // ends with Close
	end        context.CancelFunc
	background sync.WaitGroup
	watchList  atomic.Pointer[func(*Volume)] // of tests: sees what has just been listed

	structure lock // a vDisk gets its name, another one, or is marked as being deleted: one at a time

	listed atomic.Uint64 // counts what comes, goes and gets another name

	mu      sync.Mutex
	volumes map[uuid.UUID]*Volume
	byName  map[string]*Volume
	opening map[uuid.UUID]*Volume // being opened, for findPage
}

// Open opens every vDisk of the registry, side by side, clones after their
// parents, and finishes what an earlier process had begun to delete.
func Open(ctx context.Context, opt Options) (*Host, error) {
	opt.ensureDefaults()
	h := &Host{opt: opt, structure: newLock(), volumes: make(map[uuid.UUID]*Volume), byName: make(map[string]*Volume)}
	h.living, h.end = context.WithCancel(context.Background())
	h.opening = make(map[uuid.UUID]*Volume)
	h.slots = make(chan []byte, opt.UploadSlots)
	for range opt.UploadSlots {
		h.slots <- nil
	}
	h.cache = metadata.NewCache(opt.MapCache)
	h.sums = otter.Must(&otter.Options[sumsKey, sums]{
		MaximumWeight: uint64(opt.SumsCache),
		Weigher:       func(_ sumsKey, s sums) uint32 { return uint32(4*len(s) + 64) },
	})
	if err := h.openPages(); err != nil {
		return nil, err
	}
	if err := h.openVolumes(ctx); err != nil {
		return nil, errors.Join(err, h.Close(ctx))
	}
	h.background.Go(h.lookForChanges)
	return h, nil
}

// openVolumes opens the write buffer and what the registry names.
func (h *Host) openVolumes(ctx context.Context) (err error) {
	opt := &h.opt
	h.buffer, err = writebuffer.Open(writebuffer.Options{
		FS: opt.FS, Dir: path.Join(opt.Dir, "buffer"), Bytes: opt.WriteBuffer, Files: opt.OpenFiles, Random: opt.Random, Logger: opt.Logger, OnScarce: opt.OnScarce,
	})
	if err != nil {
		return err
	}
	h.room.Store(h.buffer)
	h.buffer.OnPressure(func() { h.pressure(nil) })
	records, err := opt.Registry.List(ctx)
	if err != nil {
		return err
	}
	h.openAll(ctx, records)
	return h.finish(ctx, records)
}

// findPage finds the page object that holds a page of an open vDisk.
func (h *Host) findPage(owner uuid.UUID, page uint64) (backend.Namespace, catalog.PageObject, bool) {
	h.mu.Lock()
	v := h.volumes[owner]
	if v == nil {
		v = h.opening[owner]
	}
	h.mu.Unlock()
	if v == nil {
		return nil, catalog.PageObject{}, false
	}
	obj, ok := v.cat.current().PageObject(page)
	return v.namespace(), obj, ok
}

// pagesFailed halts every vDisk: without a page store none can grow its map
// beyond memory. The store holds nothing that the backend and the TLogs do
// not, so it is given up rather than waited for.
func (h *Host) pagesFailed(err error) {
	for _, v := range h.all() {
		v.halt(fmt.Errorf("page store %s: %w", path.Join(h.opt.Dir, "map"), err))
	}
	h.files.Abandon()
}

// openAll opens vDisks generation by generation: those whose parent is open
// or who have none, side by side.
func (h *Host) openAll(ctx context.Context, records []registry.Record) {
	known := make(map[uuid.UUID]bool, len(records))
	for _, r := range records {
		known[r.ID] = true
	}
	opened := make(map[uuid.UUID]bool, len(records))
	for len(records) > 0 {
		var now, later []registry.Record
		for _, r := range records {
			if r.Parent == uuid.Nil || opened[r.Parent] || !known[r.Parent] {
				now = append(now, r)
			} else {
				later = append(later, r)
			}
		}
		if len(now) == 0 {
			now, later = later, nil // a circle: each will say that its parent is not open
		}
		var all sync.WaitGroup
		side := make(chan struct{}, openSideBySide)
		for _, r := range now {
			opened[r.ID] = true
			if r.Deleting {
				continue
			}
			side <- struct{}{}
			all.Go(func() {
				h.openOne(ctx, r, nil)
				<-side
			})
		}
		all.Wait()
		records = later
	}
}

// openSideBySide vDisks are recovered at a time.
const openSideBySide = 8

// openOne opens a vDisk and lists it, halted if that fails. One that was made just
// now, with its first epoch claimed, is born: what is known of it, or an empty
// value.
func (h *Host) openOne(ctx context.Context, r registry.Record, born *unnamed) *Volume {
	v := h.newVolume(r)
	v.opening.created, v.epoch = born, r.Epoch
	h.mu.Lock()
	h.opening[r.ID] = v
	h.mu.Unlock()
	err := h.open(ctx, v)
	later := err != nil && v.buf == nil && h.openLater(r, err)
	switch {
	case later:
		v.halted.Store(&haltError{name: r.Name, cause: err, shut: StateUnsure})
	case err != nil:
		v.halt(err)
	}
	h.mu.Lock()
	delete(h.opening, r.ID)
	h.mu.Unlock()
	var u *unsure
	if later { // before it is listed: nobody is to rename or delete it as if it was known
		u = h.openUnknown(v, r, err)
		v.unsure.Store(u)
	}
	h.list(v)
	if later {
		h.lookInto(v, u)
	}
	return v
}

// openLater reports whether a vDisk that could not be opened is to be opened by
// itself: nobody answered, or a file could not be read, which says nothing of the
// vDisk's data.
func (h *Host) openLater(r registry.Record, err error) bool {
	if errors.Is(err, errParentClosed) {
		return h.parentLater(r)
	}
	for _, later := range []error{ErrUnknownOutcome, registry.ErrUnknownOutcome, registry.ErrNotSwapped, errUnanswered, backend.ErrUnavailable} {
		if errors.Is(err, later) {
			return true
		}
	}
	// No errno is damage: a file that was not read may be read yet.
	cause := disk.CauseOf(err)
	return cause.Passes() || cause == disk.BadDisk
}

// parentLater reports whether the parent of a clone is not open, and may be yet.
func (h *Host) parentLater(r registry.Record) bool {
	p := h.byID(r.Parent)
	return p != nil && p.closedBy() != nil
}

// finish ends deletions that were begun, and removes what no vDisk owns: left
// over from creations that never became visible.
func (h *Host) finish(ctx context.Context, records []registry.Record) error {
	known := make(map[uuid.UUID]bool)
	for _, r := range records {
		known[r.ID] = true
	}
	for _, r := range records {
		if r.Deleting {
			if err := h.remove(ctx, r.ID, r.Parent); err != nil {
				h.deleteLater(r, err)
			}
		}
	}
	namespaces, err := h.opt.Backend.ListNamespaces(ctx)
	if err != nil {
		return err
	}
	for _, name := range namespaces {
		if id, err := uuid.Parse(name); err == nil && !known[id] {
			// While it is there the clone may be, too: the registry alone is no
			// witness that it never was (P8).
			known[id] = !h.removeUnborn(ctx, id)
		}
	}
	for _, v := range h.all() {
		h.dropLostChildren(v, known)
		h.dropAutomaticLater(v)
	}
	return nil
}

// removeUnborn removes a namespace whose creation never became visible, and
// reports whether it has. Any other that the registry does not know stays: the
// registry may be the one that is wrong.
func (h *Host) removeUnborn(ctx context.Context, id uuid.UUID) bool {
	v := h.newVolume(registry.Record{ID: id, Name: id.String()})
	v.epoch = math.MaxUint64
	if unborn, err := v.unborn(ctx); !unborn || err != nil {
		h.opt.Logger.Warn("namespace of a vDisk that the registry does not know: left as it is", "namespace", id, "err", err)
		return false
	}
	h.opt.Logger.Info("removing a namespace whose vDisk was never made", "namespace", id)
	if err := h.remove(ctx, id, uuid.Nil); err != nil {
		h.opt.Logger.Warn("namespace not removed", "namespace", id, "err", err)
		return false
	}
	return true
}

// unborn reports whether nothing was ever written to a vDisk: it has no local
// files, and either its first catalog, or no catalog and no object but parts of
// that.
func (v *Volume) unborn(ctx context.Context) (bool, error) {
	if v.host.buffer.Holds(v.id) {
		return false, nil
	}
	err := v.opening.loadCatalog(ctx)
	if !errors.Is(err, backend.ErrNotFound) {
		return err == nil && v.cat.current().Generation == 0, err
	}
	unborn := true
	err = v.namespace().List(ctx, "", func(i backend.Info) bool {
		unborn = strings.HasPrefix(i.Name, catalog.SegmentPrefix)
		return unborn
	})
	return unborn, err
}

// dropLostChildren removes references to clones that never became visible, and
// the snapshots that were made for them: a start does not wait for it.
func (h *Host) dropLostChildren(v *Volume, known map[uuid.UUID]bool) {
	var lost []catalog.Child
	for _, c := range v.cat.current().Children {
		if !known[c.Volume] {
			lost = append(lost, c)
		}
	}
	for _, c := range lost {
		v.hideLost(c)
		h.dropLater(v, c.Volume)
	}
}

func (h *Host) byID(id uuid.UUID) *Volume {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.volumes[id]
}

// all returns the vDisks in order of name.
func (h *Host) all() []*Volume {
	h.mu.Lock()
	list := make([]*Volume, 0, len(h.volumes))
	for _, v := range h.volumes {
		list = append(list, v)
	}
	h.mu.Unlock()
	slices.SortFunc(list, func(a, b *Volume) int { return strings.Compare(a.Name(), b.Name()) })
	return list
}

func (h *Host) volume(name string) (*Volume, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if v := h.byName[name]; v != nil {
		return v, nil
	}
	return nil, fmt.Errorf("vDisk %q: %w", name, ErrNotFound)
}

// names turns clones into their names.
func (h *Host) names(children []catalog.Child) []string {
	var names []string
	for _, c := range children {
		if v := h.byID(c.Volume); v != nil {
			names = append(names, v.Name())
		} else {
			names = append(names, c.Volume.String())
		}
	}
	slices.Sort(names)
	return names
}

// pressure is called while a writer waits and nothing can be evicted: if no TLog
// is on its way to the backend, all are closed so that they are. from is the vDisk
// whose storer calls, nil if it is the writer. A storer wakes only others that
// have something to store: storers that have nothing would else wake each other
// without end, on all processors, for as long as the backend is away.
func (h *Host) pressure(from *core) {
	list := h.all()
	pending := false
	for _, v := range list {
		pending = pending || v.buf != nil && v.Err() == nil && !v.store.failing.Load() && len(v.buf.Work().TLogs) > 0
	}
	for _, v := range list {
		if v.buf != nil && v.Err() == nil {
			if !pending {
				v.buf.CloseTLog()
			}
			if from == nil || &v.core != from && len(v.buf.Work().TLogs) > 0 {
				v.store.ring()
			}
		}
	}
}

// takeSlot waits for one of the upload slots and returns its buffer.
func (h *Host) takeSlot(ctx context.Context) ([]byte, error) {
	select {
	case b := <-h.slots:
		return b, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (h *Host) giveSlot(b []byte) { h.slots <- b }

// Close stops all vDisks cleanly: everything written is made durable. Devices
// must have been released.
func (h *Host) Close(ctx context.Context) error {
	h.end()
	h.background.Wait()
	var errs []error
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, v := range h.all() {
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
	if h.store != nil {
		// On a full disk Pebble would wait for room. It holds nothing that the
		// backend and the TLogs do not.
		patience := time.AfterFunc(closePatience, h.files.Abandon)
		errs = append(errs, h.store.Close())
		patience.Stop()
	}
	h.sums.StopAllGoroutines()
	return errors.Join(errs...)
}

// closePatience is how long Close waits for the page store.
const closePatience = 5 * time.Second

// remove deletes everything of a vDisk, in an order that can be repeated.
func (h *Host) remove(ctx context.Context, id, parent uuid.UUID) error {
	if err := h.buffer.Discard(id); err != nil {
		return err
	}
	if err := h.opt.Backend.DeleteNamespace(ctx, id.String()); err != nil && !errors.Is(err, backend.ErrNamespaceNotFound) {
		return err
	}
	if err := h.pages.DeletePages(ctx, id, 0, math.MaxUint64); err != nil {
		return err
	}
	v := h.byID(parent)
	if v != nil && v.closedBy() != nil {
		return fmt.Errorf("clone of vDisk %q: %w", v.Name(), v.sure())
	}
	if v != nil && v.Err() == nil {
		if err := h.dropChild(ctx, v, id); err != nil {
			return err
		}
	}
	if err := h.opt.Registry.Remove(ctx, id); err != nil && !errors.Is(err, registry.ErrNotFound) {
		return err
	}
	return nil
}

// dropChild removes a clone from its parent's catalog, and the snapshot with
// it if that was made for the clone.
func (h *Host) dropChild(ctx context.Context, v *Volume, child uuid.UUID) error {
	if err := v.forgetChild(ctx, child); err != nil {
		return err
	}
	v.cat.withCurrent(v.tree.hideChildless)
	return h.dropAutomatic(ctx, v)
}

// forgetChild removes a clone from the catalog.
func (v *Volume) forgetChild(ctx context.Context, child uuid.UUID) error {
	return v.cat.update(ctx, func(c *catalog.Catalog) error {
		c.Children = slices.DeleteFunc(c.Children, func(k catalog.Child) bool { return k.Volume == child })
		return nil
	})
}
