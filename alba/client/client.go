package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	crand "crypto/rand"

	"openvstorage/alba/abm"
	"openvstorage/alba/fleet"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/object"
	"openvstorage/backend"
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
	// Prove is asked before something is sealed with a master key. Its error says that
	// the key may have changed since it was used last. nil: all keys are right.
	Prove         func(ctx context.Context, number uint64) error
	Bad           func(Bad)    // hears of bad fragments; must not block
	Unread        func(Unread) // hears of ranges that can be neither read nor made; must not block
	Deleted       func()       // hears that there are fragments to delete; must not block
	Logger        *slog.Logger
	Uploads       int           // objects encoded side by side, each with its memory; default 4
	LateBytes     int64         // of chunks that late fragments keep in memory, beyond what Uploads takes; default 128 MiB
	ManifestBytes int64         // of manifests in memory; default 64 MiB
	Patience      time.Duration // how long a put waits for late fragments once k are stored, at most; default 1 s
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
		o.Patience = time.Second
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
	Moved      uint64 // fragments that spare disks were given because their own were late
	LateBytes  uint64 // of chunks that late fragments keep in memory now, of at most Options.LateBytes
	Reads      uint64 // ranges read from disks
	ReadBytes  uint64
	CacheHits  uint64 // ranges read from the fragment cache
	Asked      uint64 // ranges that were wanted from disks
	Hedged     uint64 // reads that others were asked for, the disk being slow
	HedgeReads uint64 // ranges read from disks for that, of at most a twentieth of Asked, but for those of disks that hang
	Degraded   uint64 // ranges made from other fragments
	Unreadable uint64 // ranges that could not be made
}

// Client is a backend.Store over ALBA. It ties the parts that do the work: spaces knows
// the namespaces, manifests where objects are, the reader gets them and the writer puts
// them. Safe for concurrent use.
type Client struct {
	opt    Options
	closed atomic.Bool

	spaces    spaces
	manifests *manifests
	reader    reader
	writer    writer
}

var _ backend.Store = (*Client)(nil)

// New makes a client.
func New(opt Options) *Client {
	opt.ensureDefaults()
	keys := &keys{opt.Key, opt.Prove}
	manifests := newManifests(opt.ManifestBytes, keys)
	c := &Client{
		opt: opt, manifests: manifests,
		spaces: spaces{abm: opt.ABM, host: opt.Host, epochAge: opt.EpochAge, known: make(map[string]*space)},
		reader: reader{fleet: opt.Fleet, manifests: manifests, cache: opt.Cache, bad: opt.Bad, unread: opt.Unread, log: opt.Logger},
		writer: writer{
			fleet: opt.Fleet, manifests: manifests, keys: keys, refresh: opt.Refresh, deleted: opt.Deleted, patience: opt.Patience,
			log: opt.Logger,
		},
	}
	c.reader.openers.New = func() any { return new(scratch) }
	c.writer.life, c.writer.end = context.WithCancel(context.Background())
	c.writer.chunks.init(opt.Uploads, opt.LateBytes)
	c.writer.behind.init()
	return c
}

// Close waits a while for fragments that are still being written. A fragment that its disk
// does not write in time is not entered in the manifest, and a repair makes it again.
// Calls after Close return backend.ErrClosed.
func (c *Client) Close() error {
	c.closed.Store(true)
	c.writer.close()
	return nil
}

// Settle waits for puts that are under way, and for late fragments and recovery records of puts
// that have returned. No put may begin meanwhile.
func (c *Client) Settle() {
	c.writer.behind.now.Ring()
	c.writer.late.Wait()
}

// Trim gives back the memory of idle coders and of read buffers.
func (c *Client) Trim() {
	c.reader.buffers.drop()
	c.writer.chunks.trim()
}

// Invalidate forgets an object's manifest: whoever changes the object says so.
func (c *Client) Invalidate(namespace uint64, name string) { c.manifests.forget(namespace, name) }

// Stats returns the counters.
func (c *Client) Stats() Stats {
	r, w := &c.reader.counts, &c.writer.counts
	return Stats{
		Plain: w.plain.Load(), Data: w.data.Load(), Parity: w.parity.Load(), Inline: w.inline.Load(), Manifests: w.manifests.Load(),
		Retries: w.retries.Load(), Narrow: w.narrow.Load(), Late: w.late.Load(), Moved: w.moved.Load(), LateBytes: uint64(c.writer.chunks.lent()),
		Reads: r.reads.Load(), ReadBytes: r.readBytes.Load(), CacheHits: r.cacheHits.Load(), Asked: r.asked.Load(), Hedged: r.hedged.Load(), HedgeReads: r.hedgeReads.Load(),
		Degraded: r.degraded.Load(), Unreadable: r.unreadable.Load(),
	}
}

// newObjectID draws an id, used for one attempt to upload.
func newObjectID() (id manifest.ObjectID, err error) {
	_, err = io.ReadFull(crand.Reader, id[:])
	return id, err
}

// translate adds the error of package backend that an error of a manager stands for.
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
