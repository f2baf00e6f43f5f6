package roster

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/google/uuid"
)

// Limits of a roster.
const (
	HostsMax     = 1024
	GroupsMax    = 32
	MembersMax   = 16 // of a group, learners too
	AddressesMax = 8  // of a host, for each kind of traffic
	AddressMax   = 255
	NameMax      = 64 // bytes of the name of a group or a zone
)

// ErrInvalid: a roster that nobody could have meant.
var ErrInvalid = errors.New("invalid roster")

// Roster is the list. It is a plain value; whoever shares one does not change it.
type Roster struct {
	Revision uint64 // how often the roster was changed
	Hosts    []Host // in order of ID
	Groups   []Group
}

// Host is a host as a place for members.
type Host struct {
	ID        uuid.UUID
	Zone      string
	Addresses []string // host:port; the first that answers is used
	Insecure  bool     // it listens without TLS
	Leaves    bool     // a person wants no members on it: they go elsewhere
	// Maintenance: a person works on it. Its members stay, lead nothing, and are replaced by
	// nobody, and it gets no further ones.
	Maintenance bool
}

// Group is one Arakoon group.
type Group struct {
	Name         string
	Life         uint64 // raised by each recovery
	RequireZones uint8  // that must hold what is answered; 0 and 1: no requirement
	Next         uint64 // the first member number that was never given away
	Members      []Member
}

// Member is a member and its place.
type Member struct {
	ID   uint64
	Host uuid.UUID
}

// Host returns a host.
func (r *Roster) Host(id uuid.UUID) (Host, bool) {
	i, found := slices.BinarySearchFunc(r.Hosts, id, func(h Host, id uuid.UUID) int { return bytes.Compare(h.ID[:], id[:]) })
	if !found {
		return Host{}, false
	}
	return r.Hosts[i], true
}

// Group returns a group.
func (r *Roster) Group(name string) (Group, bool) {
	i, found := slices.BinarySearchFunc(r.Groups, name, func(g Group, name string) int { return cmp.Compare(g.Name, name) })
	if !found {
		return Group{}, false
	}
	return r.Groups[i], true
}

// Place returns the host that a member of a group is on.
func (r *Roster) Place(group string, member uint64) (Host, bool) {
	g, _ := r.Group(group)
	for _, m := range g.Members {
		if m.ID == member {
			return r.Host(m.Host)
		}
	}
	return Host{}, false
}

// MemberOn returns the member of a group that is on a host.
func (g *Group) MemberOn(host uuid.UUID) (Member, bool) {
	for _, m := range g.Members {
		if m.Host == host {
			return m, true
		}
	}
	return Member{}, false
}

// Sort brings hosts, groups and members into the order that the other methods need.
func (r *Roster) Sort() {
	slices.SortFunc(r.Hosts, func(a, b Host) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	slices.SortFunc(r.Groups, func(a, b Group) int { return cmp.Compare(a.Name, b.Name) })
	for _, g := range r.Groups {
		slices.SortFunc(g.Members, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	}
}

// Check returns an ErrInvalid that names what is wrong with a roster.
func (r *Roster) Check() error {
	if len(r.Hosts) > HostsMax || len(r.Groups) > GroupsMax {
		return fmt.Errorf("%w: %d hosts and %d groups, at most %d and %d", ErrInvalid, len(r.Hosts), len(r.Groups), HostsMax, GroupsMax)
	}
	for i, h := range r.Hosts {
		if err := h.check(); err != nil {
			return err
		}
		if i > 0 && bytes.Compare(r.Hosts[i-1].ID[:], h.ID[:]) >= 0 {
			return fmt.Errorf("%w: host %s is out of order", ErrInvalid, h.ID)
		}
	}
	for i, g := range r.Groups {
		if err := g.check(); err != nil {
			return err
		}
		if i > 0 && r.Groups[i-1].Name >= g.Name {
			return fmt.Errorf("%w: group %q is out of order", ErrInvalid, g.Name)
		}
		for _, m := range g.Members {
			if _, known := r.Host(m.Host); !known {
				return fmt.Errorf("%w: member %d of group %q is on host %s, which is not listed", ErrInvalid, m.ID, g.Name, m.Host)
			}
		}
	}
	return nil
}

func (h *Host) check() error {
	if h.ID == (uuid.UUID{}) {
		return fmt.Errorf("%w: a host without an ID", ErrInvalid)
	}
	if len(h.Zone) > NameMax {
		return fmt.Errorf("%w: host %s: a zone of %d bytes, at most %d", ErrInvalid, h.ID, len(h.Zone), NameMax)
	}
	if len(h.Addresses) > AddressesMax {
		return fmt.Errorf("%w: host %s: %d addresses, at most %d", ErrInvalid, h.ID, len(h.Addresses), AddressesMax)
	}
	for _, a := range h.Addresses {
		if len(a) > AddressMax {
			return fmt.Errorf("%w: host %s: an address of %d bytes, at most %d", ErrInvalid, h.ID, len(a), AddressMax)
		}
		if _, port, err := net.SplitHostPort(a); err != nil || port == "" {
			return fmt.Errorf("%w: host %s: address %q is not HOST:PORT", ErrInvalid, h.ID, a)
		}
	}
	return nil
}

func (g *Group) check() error {
	if g.Name == "" || len(g.Name) > NameMax {
		return fmt.Errorf("%w: a group whose name has %d bytes, not 1 to %d", ErrInvalid, len(g.Name), NameMax)
	}
	if len(g.Members) > MembersMax {
		return fmt.Errorf("%w: group %q: %d members, at most %d", ErrInvalid, g.Name, len(g.Members), MembersMax)
	}
	on := make(map[uuid.UUID]bool)
	for i, m := range g.Members {
		if m.ID == 0 || m.ID >= g.Next {
			return fmt.Errorf("%w: group %q: member number %d was not given away; the next is %d", ErrInvalid, g.Name, m.ID, g.Next)
		}
		if i > 0 && g.Members[i-1].ID >= m.ID {
			return fmt.Errorf("%w: group %q: member %d is out of order", ErrInvalid, g.Name, m.ID)
		}
		if on[m.Host] {
			return fmt.Errorf("%w: group %q: two members are on host %s", ErrInvalid, g.Name, m.Host)
		}
		on[m.Host] = true
	}
	return nil
}
