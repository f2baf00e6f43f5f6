package maintenance

import (
	"cmp"
	"errors"
	"slices"
	"sync"
	"time"

	"openvstorage/alba/client"
)

// objectKey names an object.
type objectKey struct {
	ns   uint64
	name string
}

// pending is the objects that wait for a repair: those with fragments that were
// reported bad, and those whose repair failed. A repair that fails once may well
// succeed the next time, and nobody may find the object again: a fragment that is
// bad is not missing to the NSM. So it stays here until its repair has succeeded.
//
// It is bounded. What does not fit is counted; objects below full width are found
// again by the next survey, bad fragments by the next read or scrub.
type pending struct {
	first, most time.Duration // waits behind the first failure, and at most
	limit       int

	mu      sync.Mutex
	objects map[objectKey]*waiting
	bad     int // fragments, of all objects
}

// waiting is one object of pending.
type waiting struct {
	bad    []client.Bad // fragments that were reported; none: it is below full width or must move
	tries  int          // that failed
	next   time.Time
	beyond string // what the disks were when they did not allow it; "": they did
	short  error  // too few of its fragments could be read at the last try, nil: enough
}

// due is an object to be repaired now.
type due struct {
	objectKey
	bad []client.Bad
}

// report adds a fragment that is bad, and reports whether there was room.
func (p *pending) report(b client.Bad) bool {
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

// due returns the objects whose time has come, those that wait longest first, and
// those that the disks did not allow if the disks are others now.
func (p *pending) due(now time.Time, sight string) []due {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []due
	for k, w := range p.objects {
		if !w.waits(now, sight) {
			list = append(list, due{k, slices.Clone(w.bad)})
		}
	}
	slices.SortFunc(list, func(a, b due) int {
		return cmp.Or(p.objects[a.objectKey].next.Compare(p.objects[b.objectKey].next), cmp.Compare(a.ns, b.ns), cmp.Compare(a.name, b.name))
	})
	return list
}

func (w *waiting) waits(now time.Time, sight string) bool {
	return now.Before(w.next) && (w.beyond == "" || w.beyond == sight)
}

// waits reports whether an object is here and its time has not come.
func (p *pending) waits(k objectKey, now time.Time, sight string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.objects[k]
	return w != nil && w.waits(now, sight)
}

// repaired takes an object out, with the fragments that it was repaired of; it
// stays for others that were reported meanwhile.
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

// failed has an object tried again later, twice as late with each failure. beyond
// is not "" if the disks, as they are, do not allow it. It returns how often it has
// failed, 0 if there is no room to remember that.
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
	wait := p.most
	if w.tries < 30 && p.first<<w.tries < p.most {
		wait = p.first << w.tries
	}
	if beyond != "" {
		wait = p.most
	}
	w.tries++
	w.beyond, w.next, w.short = beyond, now.Add(wait), nil
	if errors.Is(err, errShort) {
		w.short = err
	}
	return w.tries
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
