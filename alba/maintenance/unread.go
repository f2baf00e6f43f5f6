package maintenance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"openvstorage/alba/client"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/object"
	"openvstorage/alba/osd"
)

// Bounds of what is remembered of reads that failed for good, and of how many of
// them are made again in one pass.
const (
	unreadMax  = 1000
	unreadPass = 16
)

// unreadRetryMax is the longest wait before such a read is made again.
const unreadRetryMax = 30 * time.Second

// unread remembers the objects of which a range could neither be read nor made.
// Each is read again until that succeeds, or the object is gone: what people are
// shown is thus what a read would get now.
type unread struct {
	mu      sync.Mutex
	objects map[objectKey]*unreadObject
}

type unreadObject struct {
	client.Unread
	tries int
	next  time.Time
	sight string // the disks, as they were at the last try
}

// Unread takes a report of a range that could not be read. It does not block.
func (m *Maintenance) Unread(u client.Unread) {
	m.unread.mu.Lock()
	defer m.unread.mu.Unlock()
	k := objectKey{u.Namespace, u.Name}
	if m.unread.objects[k] == nil && len(m.unread.objects) < unreadMax {
		m.unread.objects[k] = &unreadObject{Unread: u}
	}
}

// Failed is how many objects could not be read or repaired for want of good
// fragments when that was tried last, and one of them with its error.
func (m *Maintenance) Failed() (n uint64, example string) {
	failed := m.pending.short()
	m.unread.mu.Lock()
	defer m.unread.mu.Unlock()
	for k, o := range m.unread.objects {
		failed[k] = o.Err
	}
	var first objectKey
	for k := range failed {
		if example == "" || k.name < first.name {
			first, example = k, fmt.Sprintf("object %s of namespace %d: %v", k.name, k.ns, failed[k])
		}
	}
	return uint64(len(failed)), example
}

// reread makes some of the reads again that failed. m.mu is held.
func (m *Maintenance) reread(ctx context.Context) {
	sight, now := m.sight(), m.opt.Now()
	m.unread.mu.Lock()
	var due []*unreadObject
	for _, o := range m.unread.objects {
		if !now.Before(o.next) || o.sight != sight {
			due = append(due, o)
		}
	}
	m.unread.mu.Unlock()
	slices.SortFunc(due, func(a, b *unreadObject) int { return a.next.Compare(b.next) })
	for _, o := range due[:min(len(due), unreadPass)] {
		err := m.readAgain(ctx, &o.Unread)
		if ctx.Err() != nil {
			return
		}
		m.unread.mu.Lock()
		if err == nil {
			delete(m.unread.objects, objectKey{o.Namespace, o.Name})
		} else {
			o.Err, o.sight = err, sight
			o.next = now.Add(min(max(m.opt.Retry, 0)<<min(o.tries, 10), unreadRetryMax))
			o.tries++
		}
		m.unread.mu.Unlock()
	}
}

// readAgain reads a range of as many fragments as it takes. It returns nil if that
// succeeds, or if the object is not there any more.
func (m *Maintenance) readAgain(ctx context.Context, u *client.Unread) error {
	host, err := m.hostOf(ctx, u.Namespace)
	if err != nil || host == nil {
		return err
	}
	o, err := host.Get(ctx, u.Namespace, u.Name, userfn.Consistent)
	if errors.Is(err, nsm.ErrNotFound) || errors.Is(err, nsm.ErrNamespaceNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	mf, err := manifest.Decode(o.Manifest)
	if err != nil {
		return err
	}
	if mf.Object != u.Object || u.Range.Chunk >= len(mf.Chunks) {
		return nil // another object has the name
	}
	good, need := 0, int(mf.Policy.K)
	var errs []error
	for i := 0; i < mf.Policy.Width() && good < need; i++ {
		r := u.Range
		r.Fragment = i
		if err := m.readFragment(ctx, mf, r); err != nil {
			errs = append(errs, err)
			continue
		}
		good++
	}
	if good == need {
		return nil
	}
	return fmt.Errorf("chunk %d: %d of the %d fragments that are needed: %w", u.Range.Chunk, good, need, errors.Join(errs...))
}

func (m *Maintenance) readFragment(ctx context.Context, mf *manifest.Manifest, r object.Range) error {
	f := mf.Chunks[r.Chunk].Fragments[r.Fragment]
	d := m.opt.Fleet.Disk(f.OSD)
	if d == nil {
		return fmt.Errorf("fragment %d is on no disk that is there", r.Fragment)
	}
	data := make([]byte, r.Len)
	crcs := make([]uint32, osd.Blocks(len(data)))
	if err := d.ReadAside(ctx, mf.Key(r.Chunk, r.Fragment).Append(nil), r.Off, data, crcs); err != nil {
		return err
	}
	return object.Verify(mf, r, data, crcs)
}

// Suspect is an object with fragments that are known to be bad or absent.
type Suspect struct {
	Namespace uint64
	Name      string
	Bad       []client.Bad
}

// KnownBad reports whether a fragment was reported bad where it is, and not repaired
// since.
func (m *Maintenance) KnownBad(ns uint64, name string, id manifest.ObjectID, chunk, fragment int, disk uint64) bool {
	m.pending.mu.Lock()
	defer m.pending.mu.Unlock()
	w := m.pending.objects[objectKey{ns, name}]
	return w != nil && slices.ContainsFunc(w.bad, func(b client.Bad) bool {
		return sameFragment(b, client.Bad{Object: id, Chunk: chunk, Fragment: fragment, OSD: disk})
	})
}

// Suspects returns up to limit of them, in no order, and how many there are.
func (m *Maintenance) Suspects(limit int) (list []Suspect, all uint64) {
	m.pending.mu.Lock()
	defer m.pending.mu.Unlock()
	for k, w := range m.pending.objects {
		if len(w.bad) == 0 {
			continue
		}
		if all++; len(list) < limit {
			list = append(list, Suspect{k.ns, k.name, slices.Clone(w.bad)})
		}
	}
	return list, all
}
