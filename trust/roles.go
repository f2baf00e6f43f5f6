package trust

import (
	"strings"
)

// Roles is what a host does: a set.
type Roles uint32

// Roles of a host. Numbers are in records and tokens, words in certificates.
const (
	RoleDriver      Roles = 1 << iota // opens vDisks, serves NBD
	RoleProxy                         // serves the object store to others
	RoleASD                           // has disks of the backend
	RoleArakoon                       // may hold members of groups, and sign certificates
	RoleMaintenance                   // repairs, collects, rebalances
	RoleDashboard                     // serves the dashboard

	// AllRoles is what a host has unless somebody says otherwise.
	AllRoles = RoleDriver | RoleProxy | RoleASD | RoleArakoon | RoleMaintenance | RoleDashboard
)

var roleWords = [...]string{"driver", "proxy", "asd", "arakoon", "maintenance", "dashboard"}

// String returns the words of the roles, divided by commas, in the order of the
// constants.
func (r Roles) String() string {
	var words []string
	for i, w := range roleWords {
		if r&(1<<i) != 0 {
			words = append(words, w)
		}
	}
	return strings.Join(words, ",")
}

// Check returns nil if r is one role or more, all of them known.
func (r Roles) Check() error {
	if r == 0 || r&^AllRoles != 0 {
		return invalid("roles %#x are none, or not all known", uint32(r))
	}
	return nil
}

// ParseRoles reads what String writes, in any order: at least one role, each once.
func ParseRoles(s string) (Roles, error) {
	var r Roles
	if len(s) > 256 {
		return 0, invalid("roles of %d bytes", len(s))
	}
words:
	for word := range strings.SplitSeq(s, ",") {
		for i, w := range roleWords {
			if w == word && r&(1<<i) == 0 {
				r |= 1 << i
				continue words
			}
		}
		return 0, invalid("role %q: roles are %s, each once, divided by commas", word, AllRoles)
	}
	return r, nil
}

// Role is what a person, or a program that is no host, may be: one of these.
type Role uint8

// Roles of people. Words are in certificates.
const (
	Admin   Role = 1 + iota // everything that people may
	Viewer                  // looks at everything but data
	Metrics                 // reads metrics
	NBD                     // opens vDisks over NBD
)

var personWords = [...]string{Admin: "admin", Viewer: "viewer", Metrics: "metrics", NBD: "nbd"}

// String returns the word of the role.
func (r Role) String() string {
	if r == 0 || int(r) >= len(personWords) {
		return "no role"
	}
	return personWords[r]
}

// ParseRole reads what String writes.
func ParseRole(s string) (Role, error) {
	for i, w := range personWords {
		if i > 0 && w == s {
			return Role(i), nil
		}
	}
	return 0, invalid("role %q: it is admin, viewer, metrics or nbd", s)
}
