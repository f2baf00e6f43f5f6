package trust

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"openvstorage/internal/broadcast"
	"openvstorage/internal/ctxlock"
	"openvstorage/internal/disk"
)

// CacheOptions are those of OpenCache.
type CacheOptions struct {
	Cluster uuid.UUID
	Store   Store   // nil: the cache stays what its file has
	FS      disk.FS // nil: the cache has no file
	File    string
	Every   time.Duration    // how often Run looks for changes; 0: 10 s
	Now     func() time.Time // nil: time.Now
	// Fault is told of what does not keep the cache from working: a file that cannot be
	// read or written, a record that this release does not know. It may be nil.
	Fault func(error)
}

// Cache is what a host knows of the records of hosts and certificates, without asking
// anybody. It takes at most about 10 MB of memory and of disk: see the limits.
//
// What was once revoked stays so in it, and so do hosts that were removed, whatever state
// the store goes back to. While the store is behind what the cache has seen, the cache
// keeps what the store does not have.
type Cache struct {
	o       CacheOptions
	lock    ctxlock.Lock // held over a refresh
	now     atomic.Pointer[snapshot]
	changed broadcast.Broadcast

	refreshes atomic.Uint64 // how often the records were read, or seen to be the same
}

// snapshot is the records as they were at one moment. It does not change.
type snapshot struct {
	meta  []byte // the meta record that it goes with, nil if nothing was ever read
	high  uint64 // the newest change that was ever seen
	hosts map[uuid.UUID]Host
	certs map[Serial]Certificate
}

// OpenCache opens the cache of a host, from its file if there is one. A file that is
// damaged is told to Fault, and the cache begins empty; one that a newer release wrote is
// an error. It reads nothing of the store: Refresh does.
func OpenCache(o CacheOptions) (*Cache, error) {
	if o.Every == 0 {
		o.Every = 10 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Fault == nil {
		o.Fault = func(error) {}
	}
	c := &Cache{o: o, lock: ctxlock.New()}
	s := &snapshot{}
	if o.FS != nil {
		b, err := readFile(o.FS, o.File, cacheFileMax)
		if err == nil {
			s, err = decodeCache(b, o.Cluster)
		}
		switch {
		case errors.Is(err, errCacheDamaged):
			o.Fault(fmt.Errorf("%s: %w: the records are read again from the cluster", o.File, err))
			s = &snapshot{}
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("%s: %w", o.File, err)
		}
	}
	c.now.Store(s)
	return c, nil
}

// Empty reports whether nothing was ever read: by the host that has just joined.
func (c *Cache) Empty() bool { return c.now.Load().meta == nil }

// Host returns the record of a host.
func (c *Cache) Host(id uuid.UUID) (Host, bool) {
	h, ok := c.now.Load().hosts[id]
	return h, ok
}

// Hosts returns the records of all hosts, in order of their UUIDs.
func (c *Cache) Hosts() []Host {
	return slices.SortedFunc(maps.Values(c.now.Load().hosts), func(x, y Host) int { return bytes.Compare(x.ID[:], y.ID[:]) })
}

// Certificate returns the record of a certificate.
func (c *Cache) Certificate(s Serial) (Certificate, bool) {
	r, ok := c.now.Load().certs[s]
	return r, ok
}

// Next returns a channel that is closed when the records have changed. Whoever has
// connections takes it, asks Guard.Still of each, and then waits for it.
func (c *Cache) Next() <-chan struct{} { return c.changed.Next() }

// refreshTries is how often a refresh begins anew because the records change meanwhile.
const refreshTries = 8

// Refresh reads the records if they have changed. What it read is obeyed on return. If
// only the cache's file could not be written, Fault is told, and there is no error. The
// store may be behind: a member's own state will do.
func (c *Cache) Refresh(ctx context.Context) error {
	if c.o.Store == nil {
		return nil
	}
	if err := c.lock.Take(ctx); err != nil {
		return err
	}
	defer c.lock.Give()
	ctx = context.WithValue(ctx, refreshing{}, c)
	old := c.now.Load()
	for range refreshTries {
		value, err := c.o.Store.Get(ctx, []byte(metaKey))
		if err != nil {
			return fmt.Errorf("trust: records: %w", err)
		}
		if value == nil {
			return fmt.Errorf("trust: records: %w", ErrNotFounded)
		}
		if bytes.Equal(value, old.meta) {
			c.refreshes.Add(1)
			return nil
		}
		m, err := decodeMeta(value)
		if err != nil {
			return err
		}
		if m.cluster != c.o.Cluster {
			return fmt.Errorf("trust: records: %w: they are of cluster %s, this is cluster %s", ErrOtherCluster, m.cluster, c.o.Cluster)
		}
		s, err := c.read(ctx, value, m)
		if err != nil {
			return err
		}
		if again, err := c.o.Store.Get(ctx, []byte(metaKey)); err != nil {
			return fmt.Errorf("trust: records: %w", err)
		} else if !bytes.Equal(again, value) {
			continue
		}
		c.obey(old, s)
		return nil
	}
	return fmt.Errorf("trust: records: %w while they were read, %d times", ErrContended, refreshTries)
}

// refreshing is the key of a context under which a cache is being refreshed.
type refreshing struct{}

// refreshOnce is Refresh, but not for a connection that a refresh makes itself: it
// would wait for itself.
func (c *Cache) refreshOnce(ctx context.Context) error {
	if ctx.Value(refreshing{}) == c {
		return errors.New("this connection is made to read them")
	}
	if c.o.Store == nil {
		return errors.New("there is no store")
	}
	return c.Refresh(ctx)
}

// renewed reports whether a host's certificate, which is not on record, is younger than
// all of that host that are. The host must be a member with a certificate that is good.
func (c *Cache) renewed(p *Peer, leaf *x509.Certificate) bool {
	h, ok := c.Host(p.Identity.Host)
	if !ok || h.State != Joined || len(h.Serials) == 0 {
		return false
	}
	p.Identity.Roles &= h.Roles
	for _, s := range h.Serials {
		if r, ok := c.Certificate(s); ok && !leaf.NotBefore.After(r.From) {
			return false
		}
	}
	return true
}

// read reads all hosts and certificates. Those that this release cannot read are left
// out: whoever has such a certificate is refused.
func (c *Cache) read(ctx context.Context, value []byte, m meta) (*snapshot, error) {
	s := &snapshot{meta: value, high: m.number, hosts: map[uuid.UUID]Host{}, certs: map[Serial]Certificate{}}
	err := c.o.Store.Range(ctx, []byte(hostPrefix), func(_, value []byte) bool {
		if h, err := decodeHost(value); err != nil {
			c.o.Fault(err)
		} else {
			s.hosts[h.ID] = h
		}
		return len(s.hosts) <= HostsMax
	})
	if err == nil {
		err = c.o.Store.Range(ctx, []byte(certificatePrefix), func(_, value []byte) bool {
			if r, err := decodeCertificate(value); err != nil {
				c.o.Fault(err)
			} else {
				s.certs[r.Serial] = r
			}
			return len(s.certs) <= CertificatesMax
		})
	}
	if err != nil {
		return nil, fmt.Errorf("trust: records: %w", err)
	}
	if len(s.hosts) > HostsMax || len(s.certs) > CertificatesMax {
		return nil, fmt.Errorf("trust: records: %w: more than %d hosts or %d certificates", ErrFull, HostsMax, CertificatesMax)
	}
	return s, nil
}

// obey makes what was read what holds, with what must not be forgotten, and keeps it.
func (c *Cache) obey(old, s *snapshot) {
	s.keep(old)
	c.now.Store(s)
	c.refreshes.Add(1)
	c.changed.Send()
	if c.o.FS == nil {
		return
	}
	b, err := s.encode(c.o.Cluster)
	if err == nil {
		err = replaceFile(c.o.FS, c.o.File, b)
	}
	if err != nil {
		c.o.Fault(fmt.Errorf("the records that this host refuses certificates by are not kept for the next start: %w", err))
	}
}

// keep takes over from an older snapshot what must not be forgotten.
func (s *snapshot) keep(old *snapshot) {
	behind := s.high < old.high
	s.high = max(s.high, old.high)
	for id, was := range old.hosts {
		is, ok := s.hosts[id]
		if ok && was.State == Removed && is.State != Removed || !ok && behind && len(s.hosts) < HostsMax {
			s.hosts[id] = was
		}
	}
	for serial, was := range old.certs {
		is, ok := s.certs[serial]
		switch {
		case ok && !was.Revoked.IsZero() && is.Revoked.IsZero(): // the store went back
			is.Revoked, is.Reason = was.Revoked, was.Reason
			s.certs[serial] = is
		case !ok && behind && len(s.certs) < CertificatesMax:
			s.certs[serial] = was
		}
	}
}

// Run refreshes every so often until ctx ends, and returns its error. A store that does
// not answer is told to Fault, and asked again.
func (c *Cache) Run(ctx context.Context) error {
	t := time.NewTicker(c.o.Every)
	defer t.Stop()
	for {
		if err := c.Refresh(ctx); err != nil && ctx.Err() == nil {
			c.o.Fault(err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
}
