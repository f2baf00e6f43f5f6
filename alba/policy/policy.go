package policy

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// MaxWidth bounds k+m, as package ec does.
const MaxWidth = 64

// MaxPolicies bounds a list of policies.
const MaxPolicies = 16

// ErrPolicy says that something is no policy, or no list of policies.
var ErrPolicy = errors.New("not a policy")

// Policy is (k, m, c, x). The zero Policy is none.
type Policy struct {
	K uint8 // data fragments
	M uint8 // parity fragments: how many may be lost
	C uint8 // fragments stored before an object is accepted
	X uint8 // fragments on one node, at most
}

// Default is the policy of a store that was given none.
var Default = Policy{K: 2, M: 1, C: 2, X: 3}

// Width returns k+m.
func (p Policy) Width() int { return int(p.K) + int(p.M) }

// Validate returns ErrPolicy unless 0 < k <= c <= k+m <= MaxWidth and x > 0.
func (p Policy) Validate() error {
	switch {
	case p.K == 0:
		return fmt.Errorf("%w: %v: k is at least 1", ErrPolicy, p)
	case p.Width() > MaxWidth:
		return fmt.Errorf("%w: %v: k+m is at most %d", ErrPolicy, p, MaxWidth)
	case p.C < p.K || int(p.C) > p.Width():
		return fmt.Errorf("%w: %v: c is between k and k+m", ErrPolicy, p)
	case p.X == 0:
		return fmt.Errorf("%w: %v: x is at least 1", ErrPolicy, p)
	}
	return nil
}

// String returns "k,m,c,x".
func (p Policy) String() string { return fmt.Sprintf("%d,%d,%d,%d", p.K, p.M, p.C, p.X) }

// Parse reads what String prints. It ignores blanks around the numbers.
func Parse(s string) (Policy, error) {
	words := strings.Split(s, ",")
	if len(words) != 4 {
		return Policy{}, fmt.Errorf("%w: %q; write k,m,c,x such as %v", ErrPolicy, s, Default)
	}
	var n [4]uint8
	for i, w := range words {
		v, err := strconv.ParseUint(strings.TrimSpace(w), 10, 8)
		if err != nil {
			return Policy{}, fmt.Errorf("%w: %q: %q is no number up to 255", ErrPolicy, s, w)
		}
		n[i] = uint8(v)
	}
	p := Policy{K: n[0], M: n[1], C: n[2], X: n[3]}
	return p, p.Validate()
}

// MarshalText and UnmarshalText let a policy stand in JSON as "k,m,c,x".
func (p Policy) MarshalText() ([]byte, error) { return []byte(p.String()), p.Validate() }

// UnmarshalText is Parse.
func (p *Policy) UnmarshalText(b []byte) (err error) {
	*p, err = Parse(string(b))
	return err
}

// ValidateList returns ErrPolicy unless the list has 1 to MaxPolicies valid
// policies, none of them twice.
func ValidateList(list []Policy) error {
	if len(list) == 0 || len(list) > MaxPolicies {
		return fmt.Errorf("%w: a list has 1 to %d policies, not %d", ErrPolicy, MaxPolicies, len(list))
	}
	for i, p := range list {
		if err := p.Validate(); err != nil {
			return err
		}
		if slices.Contains(list[:i], p) {
			return fmt.Errorf("%w: %v is twice in the list", ErrPolicy, p)
		}
	}
	return nil
}

// ForDisks returns the list for a store on one machine with that many disks,
// best policy first:
//
//	1 disk    1,0,1,1            one copy: nothing may fail
//	2 disks   1,1,1,2            two copies
//	3 or more 2,1,2,3  1,1,1,2   any disk may fail, at 1.5 times the room
//
// Each list has full width on the disks that it is for. With fewer disks, Choose takes
// the first policy whose c still fits. So 2,1,2,3 goes on with two disks, without its
// parity fragment, until the third is back. The policy 1,1,1,2 after it lets a single
// disk take data; that data stays in the write buffer until it has full width. A store
// that gets more disks needs another list.
func ForDisks(n int) []Policy {
	switch {
	case n <= 1:
		return []Policy{{1, 0, 1, 1}}
	case n == 2:
		return []Policy{{1, 1, 1, 2}}
	default:
		return []Policy{Default, {1, 1, 1, 2}}
	}
}

// Better returns the policy of a list under which an object should be stored anew, whose
// policy is another: the first one that the list prefers to it and that the disks can keep
// with all its fragments. A policy that is not in the list any more is worse than all that
// are. better is false if the object should stay as it is.
//
// An object is never made narrow on account of it, and whatever disks come and go, what is
// better does not become worse again: objects cannot go back and forth.
func Better(list []Policy, is Policy, disks []Disk) (index int, better bool) {
	for i, p := range list {
		if p == is {
			return 0, false
		}
		if _, width, ok := Choose(list[i:i+1], disks); ok && width == p.Width() {
			return i, true
		}
	}
	return 0, false
}
