package maintenance

import (
	"cmp"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"openvstorage/alba/client"
	"openvstorage/alba/manifest"
)

// objectKey names an object.
type objectKey struct {
	ns   uint64
	name string
}

// pending is the objects that wait for a repair: those with fragments that were
// reported bad, and those whose repair failed. An object stays here until its repair
// has succeeded: a repair that fails once may succeed the next time, and the NSM does
// not know that a fragment is bad, so that no survey finds the object again.
//
// The list is bounded, and what does not fit is counted: the next survey finds objects
// below full width again, the next read or scrub finds bad fragments.
type pending struct {
	first, most time.Duration // waits behind the first failure, and at most
	limit       int

	mu      sync.Mutex
	objects map[objectKey]*waiting
	bad     int // fragments, of all objects

	reported, dropped atomic.Uint64 // fragments that were said to be bad; of them, those without room here
}

// newPending returns an empty list for limit objects and as many bad fragments.
func newPending(first, most time.Duration, limit int) *pending {
	return &pending{first: first, most: most, limit: limit, objects: make(map[objectKey]*waiting)}
}

// waiting is one object of pending.
type waiting struct {
	bad    []client.Bad // fragments that were reported; none: it is below full width or must move
	tries  int          // that failed
	next   time.Time
	beyond string // fingerprint of the disks that did not allow the repair; "" if they did
	short  error  // too few of its fragments could be read at the last try, nil: enough
}

// due is an object to be repaired now.
type due struct {
	objectKey
	bad []client.Bad
}

// report adds a fragment that is bad, and reports whether there was room.
func (p *pending) report(b client.Bad) bool {
	p.reported.Add(1)
	if !p.add(b) {
		p.dropped.Add(1)
		return false
	}
	return true
}

func (p *pending) add(b client.Bad) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := objectKey{b.Namespace, b.Name}
	w := p.objects[k]
	if w != nil && slices.ContainsFunc(w.bad, func(o client.Bad) bool { return sameFragment(o, b) }) {
		return true
	}
	if p.bad >= p.limit || w == nil && len(p.objects) >= p.limit {
		return false
	}
	if w == nil {
		w = new(waiting)
		p.objects[k] = w
	}
	w.bad = append(w.bad, b)
	p.bad++
	return true
}

func sameFragment(a, b client.Bad) bool {
	return a.Object == b.Object && a.Chunk == b.Chunk && a.Fragment == b.Fragment && a.OSD == b.OSD
}

// due returns the objects to be repaired now, those that wait longest first: objects
// whose time has come, and objects that the disks did not allow, if the disks have
// changed.
func (p *pending) due(now time.Time, fingerprint string) []due {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []due
	for k, w := range p.objects {
		if !w.waits(now, fingerprint) {
			list = append(list, due{k, slices.Clone(w.bad)})
		}
	}
	slices.SortFunc(list, func(a, b due) int {
		return cmp.Or(p.objects[a.objectKey].next.Compare(p.objects[b.objectKey].next), cmp.Compare(a.ns, b.ns), cmp.Compare(a.name, b.name))
	})
	return list
}

func (w *waiting) waits(now time.Time, fingerprint string) bool {
	return now.Before(w.next) && (w.beyond == "" || w.beyond == fingerprint)
}

// waits reports whether an object is here and its time has not come.
func (p *pending) waits(k objectKey, now time.Time, fingerprint string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.objects[k]
	return w != nil && w.waits(now, fingerprint)
}

// repaired takes out the fragments of which an object was repaired. The object stays if
// others were reported meanwhile.
func (p *pending) repaired(d due) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.objects[d.objectKey]
	if w == nil {
		return
	}
	had := len(w.bad)
	w.bad = slices.DeleteFunc(w.bad, func(b client.Bad) bool {
		return slices.ContainsFunc(d.bad, func(o client.Bad) bool { return sameFragment(o, b) })
	})
	p.bad -= had - len(w.bad)
	if len(w.bad) == 0 {
		delete(p.objects, d.objectKey)
		return
	}
	w.tries, w.next, w.beyond, w.short = 0, time.Time{}, "", nil
}

// failed has an object tried again later, after twice the time with each failure. If the
// disks do not allow its repair, beyond is their fingerprint, else "". failed returns how
// often the repair has failed, or 0 if there is no room to remember that.
func (p *pending) failed(k objectKey, now time.Time, beyond string, err error) (tries int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.objects[k]
	if w == nil {
		if len(p.objects) >= p.limit {
			return 0
		}
		w = new(waiting)
		p.objects[k] = w
	}
	wait := backoff(p.first, p.most, w.tries)
	if beyond != "" {
		wait = p.most // it is tried before that if the disks change
	}
	w.tries++
	w.beyond, w.next, w.short = beyond, now.Add(wait), nil
	if errors.Is(err, errShort) {
		w.short = err
	}
	return w.tries
}

// backoff is how long a repair waits after its first failure and so many more: twice as
// long with each, most at most.
func backoff(first, most time.Duration, tries int) time.Duration {
	if tries < 30 && first<<tries < most {
		return first << tries
	}
	return most
}

// short returns the objects of which too few fragments could be read at the last
// try, with the error.
func (p *pending) short() map[objectKey]error {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make(map[objectKey]error)
	for k, w := range p.objects {
		if w.short != nil {
			list[k] = w.short
		}
	}
	return list
}

// count returns how many objects wait.
func (p *pending) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.objects)
}

// Suspect is an object with fragments that are known to be bad or absent.
type Suspect struct {
	Namespace uint64
	Name      string
	Bad       []client.Bad
}

// knownBad reports whether a fragment was reported bad on a disk and not repaired since.
func (p *pending) knownBad(ns uint64, name string, id manifest.ObjectID, chunk, fragment int, disk uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.objects[objectKey{ns, name}]
	return w != nil && slices.ContainsFunc(w.bad, func(b client.Bad) bool {
		return sameFragment(b, client.Bad{Object: id, Chunk: chunk, Fragment: fragment, OSD: disk})
	})
}

// suspects returns up to limit objects with fragments that are known to be bad, in no order, and how many
// there are.
func (p *pending) suspects(limit int) (list []Suspect, all uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, w := range p.objects {
		if len(w.bad) == 0 {
			continue
		}
		if all++; len(list) < limit {
			list = append(list, Suspect{k.ns, k.name, slices.Clone(w.bad)})
		}
	}
	return list, all
}
