package client

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	crand "crypto/rand"

	"openvstorage/alba/abm"
	"openvstorage/alba/fleet"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/object"
	"openvstorage/backend"

	"github.com/maypok86/otter/v2"
)

// Options configure a Client. ABM, Host and Fleet must be given.
type Options struct {
	ABM   *abm.Client
	Host  func(number uint64) (*nsm.Client, error) // an NSM host, by its number
	Fleet *fleet.Fleet
	// Refresh brings the fleet up to date with the ABM; nil if there is
	// nothing to do.
	Refresh func(ctx context.Context) error
	Cache   Cache                               // nil: none
	Key     func(number uint64) ([]byte, error) // master keys; nil: there are none
	// Prove is asked before something is sealed with a master key: its error says
	// that the key may be another than it was. nil: all are right.
	Prove   func(ctx context.Context, number uint64) error
	Bad     func(Bad)    // hears of bad fragments; must not block
	Unread  func(Unread) // hears of ranges that can neither be read nor made; must not block
	Deleted func()       // hears that there are fragments to delete; must not block
	Logger  *slog.Logger

	Uploads       int           // objects encoded side by side, each with its memory; default 4
	LateBytes     int64         // of chunks that late fragments keep in memory beyond those of Uploads; default 128 MiB
	ManifestBytes int64         // of manifests in memory; default 64 MiB
	Patience      time.Duration // how long a put waits for fragments beyond c; default 2 s
	EpochAge      time.Duration // how long a gc epoch is used before it is asked for again; default 15 s
}

func (o *Options) ensureDefaults() {
	if o.Uploads == 0 {
		o.Uploads = 4
	}
	if o.LateBytes == 0 {
		o.LateBytes = 128 << 20
	}
	if o.ManifestBytes == 0 {
		o.ManifestBytes = 64 << 20
	}
	if o.Patience == 0 {
		o.Patience = 2 * time.Second
	}
	if o.EpochAge == 0 {
		o.EpochAge = 15 * time.Second
	}
	if o.Bad == nil {
		o.Bad = func(Bad) {}
	}
	if o.Unread == nil {
		o.Unread = func(Unread) {}
	}
	if o.Deleted == nil {
		o.Deleted = func() {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// Bad is a fragment that a read found missing or bad.
type Bad struct {
	Namespace uint64
	Name      string
	Object    manifest.ObjectID
	Chunk     int
	Fragment  int
	OSD       uint64
	Err       error
}

// Unread is a range of an object that a read could neither get nor make from other
// fragments.
type Unread struct {
	Namespace uint64
	Name      string
	Object    manifest.ObjectID
	Range     object.Range
	Err       error
}

// Stats counts what the client has done since it was made, in bytes and calls.
type Stats struct {
	Plain      uint64 // bytes of objects that were put
	Data       uint64 // bytes of data fragments written
	Parity     uint64 // bytes of parity fragments written
	Inline     uint64 // bytes of objects that stayed in their manifest
	Manifests  uint64 // bytes of manifests committed
	Retries    uint64 // attempts to put that were begun again
	Narrow     uint64 // objects that were accepted below full width
	Late       uint64 // fragments that were entered after the commit
	LateBytes  uint64 // of chunks that late fragments keep in memory now, of at most Options.LateBytes
	Reads      uint64 // ranges read from disks
	ReadBytes  uint64
	CacheHits  uint64 // ranges read from the fragment cache
	Hedged     uint64 // reads that others were asked for, the disk being slow
	Degraded   uint64 // ranges made from other fragments
	Unreadable uint64 // ranges that could not be made
}

type stats struct {
	plain, data, parity, inline, manifests, retries, narrow, late atomic.Uint64
	reads, readBytes, cacheHits, hedged, degraded, unreadable     atomic.Uint64
}

// Client is a backend.Store over ALBA. Safe for concurrent use.
type Client struct {
	opt   Options
	stats stats

	manifests *otter.Cache[objectKey, *entry]
	changes   changes
	chunks    chunkMemory
	overdue   overdue
	buffers   buffers
	openers   sync.Pool     // of *scratch: no payload
	tasks     sync.Pool     // of *task: no payload
	sparing   atomic.Uint32 // reads that would have gone to a disk that is slow

	mu     sync.Mutex
	spaces map[string]*space
	late   sync.WaitGroup // puts, and fragments that are written after their put has returned
	closed atomic.Bool
	life   context.Context // of fragments that are being written
	end    context.CancelFunc
}

var _ backend.Store = (*Client)(nil)

// New makes a client.
func New(opt Options) *Client {
	opt.ensureDefaults()
	c := &Client{opt: opt, changes: changes{seed: maphash.MakeSeed()}, spaces: make(map[string]*space)}
	c.life, c.end = context.WithCancel(context.Background())
	c.chunks.init(opt.Uploads, opt.LateBytes)
	c.openers.New = func() any { return new(scratch) }
	c.manifests = otter.Must(&otter.Options[objectKey, *entry]{
		MaximumWeight: uint64(opt.ManifestBytes),
		Weigher:       func(k objectKey, e *entry) uint32 { return uint32(len(k.name)) + e.size() },
	})
	return c
}

// closePatience is how long Close waits for fragments that are late, if all disks
// answer, and closeMore, once it has given up those that were not begun, for the others.
const (
	closePatience = 2 * time.Second
	closeMore     = 500 * time.Millisecond
)

// Close waits for fragments that are still being written, for a while: what a disk
// does not write in time is not entered, and made again by a repair. Calls after it
// return backend.ErrClosed.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed.Store(true)
	c.mu.Unlock()
	settled := make(chan struct{})
	go func() {
		c.Settle()
		close(settled)
	}()
	patience := closePatience
	for _, d := range c.opt.Fleet.All() {
		if d.Silent() != nil {
			patience = closeMore
		}
	}
	for _, most := range []time.Duration{patience, closeMore} {
		t := time.NewTimer(most)
		select {
		case <-settled:
		case <-t.C:
		}
		t.Stop()
		c.end()
	}
	return nil
}

// Settle waits for puts that are under way, and for fragments that
// puts which have returned are still writing. New ones must not begin meanwhile.
func (c *Client) Settle() { c.late.Wait() }

// enter begins what Close waits for, unless the client is closed.
func (c *Client) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed.Load() {
		return false
	}
	c.late.Add(1)
	return true
}

// Stats returns the counters.
func (c *Client) Stats() Stats {
	s := &c.stats
	return Stats{
		Plain: s.plain.Load(), Data: s.data.Load(), Parity: s.parity.Load(), Inline: s.inline.Load(), Manifests: s.manifests.Load(),
		Retries: s.retries.Load(), Narrow: s.narrow.Load(), Late: s.late.Load(), LateBytes: uint64(c.chunks.lent()),
		Reads: s.reads.Load(), ReadBytes: s.readBytes.Load(), CacheHits: s.cacheHits.Load(), Hedged: s.hedged.Load(),
		Degraded: s.degraded.Load(), Unreadable: s.unreadable.Load(),
	}
}

// Usage implements backend.Store. Used is the fragments of objects and what is
// inline; free is what the disks that can be reached can still take, in bytes of
// objects at the width of the default preset: where that is more disks than have
// room, the room of the others counts for nothing. What was deleted is not used, and
// is free again once maintenance has taken it off the disks.
func (c *Client) Usage(ctx context.Context) (used, free uint64, err error) {
	if c.closed.Load() {
		return 0, 0, backend.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return 0, 0, err
	}
	if used, err = c.stored(ctx); err != nil {
		return 0, 0, err
	}
	_ = c.opt.Fleet.Refresh(ctx) // of one that is missing nothing counts
	p, err := c.preset(ctx, "")
	if err != nil {
		return used, 0, err
	}
	_, free = c.opt.Fleet.Takes(p.Policies)
	return used, free, nil
}

// stored adds up what all namespaces take.
func (c *Client) stored(ctx context.Context) (sum uint64, err error) {
	hosts, err := c.opt.ABM.Hosts(ctx, userfn.Consistent)
	if err != nil {
		return 0, err
	}
	for _, h := range hosts {
		host, err := c.opt.Host(h.Number)
		if err != nil {
			return 0, err
		}
		for after := uint64(0); ; {
			page, err := host.Namespaces(ctx, after, nsm.MaxKeys, userfn.Consistent)
			if err != nil {
				return 0, err
			}
			for _, n := range page {
				after = n.Number
				if n.State == nsm.NamespaceActive {
					sum += n.Stored
				}
			}
			if len(page) < nsm.MaxKeys {
				break
			}
		}
	}
	return sum, nil
}

// newObjectID draws an id, used for one attempt to upload.
func newObjectID() (id manifest.ObjectID, err error) {
	_, err = io.ReadFull(crand.Reader, id[:])
	return id, err
}

// translate makes the contract's errors of the managers' ones.
func translate(err error) error {
	for _, t := range []struct{ from, to error }{
		{nsm.ErrNotFound, backend.ErrNotFound},
		{nsm.ErrExists, backend.ErrExists},
		{nsm.ErrConflict, backend.ErrConflict},
		{nsm.ErrNamespaceNotFound, backend.ErrNamespaceNotFound},
		{abm.ErrNamespaceExists, backend.ErrNamespaceExists},
	} {
		if errors.Is(err, t.from) {
			return fmt.Errorf("%w: %w", t.to, err)
		}
	}
	return err
}
