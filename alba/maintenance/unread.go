package maintenance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"openvstorage/alba/client"
	"openvstorage/alba/fleet"
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

// unread remembers the objects of which a range could be neither read nor made. Each is
// read again until a read succeeds or the object is gone. So people are shown what a
// read would get now.
type unread struct {
	managers
	disks *diskWatch
	fleet *fleet.Fleet
	now   func() time.Time
	retry time.Duration // before a read that failed is made again, twice as long with each failure

	mu      sync.Mutex
	objects map[objectKey]*unreadObject
}

type unreadObject struct {
	client.Unread
	tries int
	next  time.Time
	disks string // their fingerprint at the last try
}

// report takes a range that could not be read. One range of an object is enough.
func (u *unread) report(r client.Unread) {
	u.mu.Lock()
	defer u.mu.Unlock()
	k := objectKey{r.Namespace, r.Name}
	if u.objects[k] == nil && len(u.objects) < unreadMax {
		u.objects[k] = &unreadObject{Unread: r}
	}
}

// failed enters the objects that could not be read, with their errors.
func (u *unread) failed(into map[objectKey]error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for k, o := range u.objects {
		into[k] = o.Err
	}
}

// reread makes some of the failed reads again, those first that are due longest. One
// pass at a time: see repairer.begin.
func (u *unread) reread(ctx context.Context) {
	disks, now := u.disks.fingerprint(), u.now()
	u.mu.Lock()
	var due []*unreadObject
	for _, o := range u.objects {
		if !now.Before(o.next) || o.disks != disks {
			due = append(due, o)
		}
	}
	u.mu.Unlock()
	slices.SortFunc(due, func(a, b *unreadObject) int { return a.next.Compare(b.next) })
	for _, o := range due[:min(len(due), unreadPass)] {
		err := u.readAgain(ctx, &o.Unread)
		if ctx.Err() != nil {
			return
		}
		u.mu.Lock()
		if err == nil {
			delete(u.objects, objectKey{o.Namespace, o.Name})
		} else {
			o.Err, o.disks = err, disks
			o.next = now.Add(min(u.retry<<min(o.tries, 10), unreadRetryMax))
			o.tries++
		}
		u.mu.Unlock()
	}
}

// readAgain reads a range of as many fragments as it takes to make the object's bytes.
// It returns nil if that succeeds, or if the object is gone.
func (u *unread) readAgain(ctx context.Context, failed *client.Unread) error {
	host, err := u.hostOf(ctx, failed.Namespace)
	if err != nil || host == nil {
		return err
	}
	o, err := host.Get(ctx, failed.Namespace, failed.Name, userfn.Consistent)
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
	if mf.Object != failed.Object || failed.Range.Chunk >= len(mf.Chunks) {
		return nil // another object has the name
	}
	good, need := 0, int(mf.Policy.K)
	var errs []error
	for i := 0; i < mf.Policy.Width() && good < need; i++ {
		r := failed.Range
		r.Fragment = i
		if err := u.readFragment(ctx, mf, r); err != nil {
			errs = append(errs, err)
			continue
		}
		good++
	}
	if good == need {
		return nil
	}
	// Deletion waits for no read: perhaps the object was deleted or replaced meanwhile.
	switch now, err := host.Get(ctx, failed.Namespace, failed.Name, userfn.Consistent); {
	case errors.Is(err, nsm.ErrNotFound), errors.Is(err, nsm.ErrNamespaceNotFound), err == nil && now.ID != o.ID:
		return nil
	}
	return fmt.Errorf("chunk %d: %d of the %d fragments that are needed: %w", failed.Range.Chunk, good, need, errors.Join(errs...))
}

func (u *unread) readFragment(ctx context.Context, mf *manifest.Manifest, r object.Range) error {
	f := mf.Chunks[r.Chunk].Fragments[r.Fragment]
	d := u.fleet.Disk(f.OSD)
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
