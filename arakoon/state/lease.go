package state

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/google/uuid"
)

// Limits of leases, the same on every member.
const (
	LeaseNameMax = 255  // bytes; at least 1
	LeasesMax    = 4096 // at once
	LeaseTTLMin  = 100 * time.Millisecond
	LeaseTTLMax  = 24 * time.Hour
)

// Lease is a lease as it is held. The state knows no time: whoever leads counts the time to
// live, and has the lease ended by a step that names the renewal it has counted from.
type Lease struct {
	Name    string
	Owner   uuid.UUID
	Fence   uint64        // revision of its grant: rises with each grant
	Renewed uint64        // revision of its last grant or renewal
	TTL     time.Duration // whole milliseconds
}

// leaseVersion is that of the value of a lease, little-endian: version u16, zero u16, owner,
// fence u64, renewed u64, time to live in milliseconds u64.
const leaseVersion = 1

const leaseSize = 4 + 16 + 24

var leasePrefix = []byte("l")

func leaseKey(name []byte) []byte {
	return append(append(make([]byte, 0, 1+len(name)), leasePrefix...), name...)
}

func appendLease(dst []byte, l Lease) []byte {
	dst = appendU32(dst, leaseVersion)
	dst = append(dst, l.Owner[:]...)
	return appendU64(appendU64(appendU64(dst, l.Fence), l.Renewed), uint64(l.TTL/time.Millisecond))
}

func decodeLease(name string, b []byte) (Lease, error) {
	l := Lease{Name: name}
	r := &reader{b: b}
	v := r.u32()
	if r.err == nil && (v > leaseVersion || v == leaseVersion && len(b) > leaseSize) {
		return l, fmt.Errorf("%w: lease %q of format %#x, with %d bytes; run a release that reads it", ErrNewer, name, v, len(b))
	}
	if v == 0 {
		r.fail("lease %q of format 0", name)
	}
	copy(l.Owner[:], r.take(16))
	l.Fence, l.Renewed = r.u64(), r.u64()
	ttl := r.u64()
	if r.err == nil && !ttlFits(ttl) {
		r.fail("lease %q lives for %d ms", name, ttl)
	}
	l.TTL = time.Duration(ttl) * time.Millisecond
	return l, r.end()
}

func ttlFits(ms uint64) bool {
	return ms >= uint64(LeaseTTLMin/time.Millisecond) && ms <= uint64(LeaseTTLMax/time.Millisecond)
}

// Acquire grants a lease to an owner, or fails with CodeLeaseHeld. The result's Count is
// the fence. An owner that holds the lease already keeps its fence, and the lease is
// renewed: so an owner is one holder, and another holder has another UUID. ttl is rounded
// up to whole milliseconds.
func (s *Sequence) Acquire(name string, owner uuid.UUID, ttl time.Duration) *Sequence {
	s.step(opAcquire, []byte(name))
	s.checkName(name)
	s.checkTTL(ttl)
	s.body = appendU64(append(s.body, owner[:]...), milliseconds(ttl))
	return s
}

// Renew begins a lease's time to live anew, or fails with CodeLeaseLost. A ttl of 0 leaves
// its length.
func (s *Sequence) Renew(name string, fence uint64, ttl time.Duration) *Sequence {
	s.step(opRenew, []byte(name))
	s.checkName(name)
	if ttl != 0 {
		s.checkTTL(ttl)
	}
	s.body = appendU64(appendU64(s.body, fence), milliseconds(ttl))
	return s
}

// Release ends a lease. If it was not held under this fence nothing happens, and the
// result's Found is false.
func (s *Sequence) Release(name string, fence uint64) *Sequence {
	s.step(opRelease, []byte(name))
	s.checkName(name)
	s.body = appendU64(s.body, fence)
	return s
}

// AssertLease fails with CodeLeaseLost unless the lease is held under this fence. With it a
// sequence has no effect if its writer has lost the lease, however late it comes.
func (s *Sequence) AssertLease(name string, fence uint64) *Sequence {
	s.step(opAssertLease, []byte(name))
	s.checkName(name)
	s.body = appendU64(s.body, fence)
	return s
}

// Expire appends the steps that end leases unless they were renewed since. The result's
// Found says which have ended. Only whoever leads proposes it, when it has counted each
// lease's time to live from that renewal.
func Expire(list ...Lease) *Sequence {
	s := new(Sequence)
	for _, l := range list {
		s.step(opExpire, []byte(l.Name))
		s.body = appendU64(appendU64(s.body, l.Fence), l.Renewed)
	}
	return s
}

func (s *Sequence) checkName(name string) {
	if n := len(name); (n == 0 || n > LeaseNameMax) && s.err == nil {
		s.err = &Error{Code: CodeTooLarge, Step: s.steps - 1, Message: fmt.Sprintf("name of a lease with %d bytes; it may have 1 to %d", n, LeaseNameMax)}
	}
}

func (s *Sequence) checkTTL(ttl time.Duration) {
	if (ttl < LeaseTTLMin || ttl > LeaseTTLMax) && s.err == nil {
		s.err = &Error{Code: CodeBadCommand, Step: s.steps - 1, Message: fmt.Sprintf("a lease that lives for %v; it may be %v to %v", ttl, LeaseTTLMin, LeaseTTLMax)}
	}
}

func milliseconds(d time.Duration) uint64 {
	return uint64((d + time.Millisecond - 1) / time.Millisecond)
}

// lease does a step about a lease.
func (t *tx) lease(s step) (result Result, failed *Error) {
	key := leaseKey(s.key)
	v, err := t.under.get(key)
	if err != nil {
		fatal(err)
	}
	var now Lease
	if v != nil {
		if now, err = decodeLease(string(s.key), v); err != nil {
			fatal(err)
		}
	}
	held := v != nil && now.Fence == s.fence
	put := func(l Lease) { t.putLease(key, appendLease(nil, l)) }
	switch s.op {
	case opAcquire:
		return t.acquire(s, now, v != nil, put)
	case opRenew:
		switch {
		case !held:
			return result, lost(s)
		case s.ttl != 0 && !ttlFits(s.ttl):
			return result, badTTL(s)
		case s.ttl != 0:
			now.TTL = time.Duration(s.ttl) * time.Millisecond
		}
		now.Renewed = t.index
		result.Count = now.Fence
		put(now)
	case opAssertLease:
		if !held {
			return result, lost(s)
		}
	case opRelease, opExpire:
		// A grant and its end never share an entry: the next grant in that entry would
		// have the same fence. Nobody knows a fence before its entry is applied, but a
		// proposer could guess one.
		result.Found = held && now.Fence < t.index && (s.op == opRelease || now.Renewed == s.renewed)
		if result.Found {
			t.group.leases--
			t.putLease(key, nil)
		}
	}
	return result, nil
}

func (t *tx) acquire(s step, now Lease, found bool, put func(Lease)) (result Result, failed *Error) {
	switch n := len(s.key); {
	case n == 0 || n > LeaseNameMax:
		return result, &Error{Code: CodeTooLarge, Message: fmt.Sprintf("name of a lease with %d bytes; it may have 1 to %d", n, LeaseNameMax)}
	case !ttlFits(s.ttl):
		return result, badTTL(s)
	case found && now.Owner != s.owner:
		return result, &Error{Code: CodeLeaseHeld, Key: slices.Clone(s.key), Message: fmt.Sprintf("lease is held by %v", now.Owner)}
	case !found && t.group.leases >= LeasesMax:
		return result, &Error{Code: CodeTooManyLeases, Key: slices.Clone(s.key), Message: fmt.Sprintf("%d leases are held, and there may be no more", t.group.leases)}
	case !found:
		t.group.leases++
		now = Lease{Owner: s.owner, Fence: t.index}
	}
	now.Renewed, now.TTL = t.index, time.Duration(s.ttl)*time.Millisecond
	put(now)
	return Result{Count: now.Fence, Found: found}, nil
}

func (t *tx) putLease(key, value []byte) {
	t.under.leased = true
	t.under.set(key, value)
}

func lost(s step) *Error {
	return &Error{Code: CodeLeaseLost, Key: slices.Clone(s.key), Message: fmt.Sprintf("lease is not held under fence %d", s.fence)}
}

func badTTL(s step) *Error {
	return &Error{Code: CodeBadCommand, Key: slices.Clone(s.key), Message: fmt.Sprintf("a lease that lives for %d ms", s.ttl)}
}

// leases are all leases that are held, as of what is applied.
type leases struct {
	mu      sync.Mutex
	byName  map[string]Lease
	version atomic.Uint64 // rises with each batch that changes one
}

func (l *leases) load(db *pebble.DB, want uint32) error {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: leasePrefix, UpperBound: prefixEnd(leasePrefix)})
	if err != nil {
		return err
	}
	all := map[string]Lease{}
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		var v []byte
		if v, err = it.ValueAndErr(); err == nil {
			name := string(it.Key()[len(leasePrefix):])
			all[name], err = decodeLease(name, v)
		}
	}
	if e := it.Close(); err == nil {
		err = e
	}
	if err != nil {
		return damaged(err)
	}
	if len(all) != int(want) {
		return fmt.Errorf("%w: it has %d leases, and counts %d", ErrDamaged, len(all), want)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.byName = all
	l.version.Add(1)
	return nil
}

// update takes over what a batch has written, which is in Pebble.
func (l *leases) update(b *writes) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.version.Add(1)
	for i := range b.entries {
		e := &b.entries[i]
		if e.dropped || e.key[0] != leasePrefix[0] {
			continue
		}
		name := e.key[len(leasePrefix):]
		if e.value == nil {
			delete(l.byName, name)
		} else if one, err := decodeLease(name, e.value); err == nil { // it was encoded just now
			l.byName[name] = one
		}
	}
}

// Lease returns a lease that is held.
func (s *State) Lease(name string) (Lease, bool) {
	s.leases.mu.Lock()
	defer s.leases.mu.Unlock()
	l, ok := s.leases.byName[name]
	return l, ok
}

// Leases returns all leases that are held, in no order.
func (s *State) Leases() []Lease {
	s.leases.mu.Lock()
	defer s.leases.mu.Unlock()
	return slices.Collect(maps.Values(s.leases.byName))
}

// LeasesVersion rises whenever a lease has changed.
func (s *State) LeasesVersion() uint64 { return s.leases.version.Load() }
