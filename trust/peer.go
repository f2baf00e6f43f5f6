package trust

import (
	"fmt"

	"github.com/google/uuid"
)

// PeerKind says as what somebody is known.
type PeerKind uint8

// Kinds of peer.
const (
	Nobody     PeerKind = iota // shows nothing: a joiner
	LocalPeer                  // has reached a socket in the data directory
	HostPeer                   // a host
	PersonPeer                 // a person, or a program that is no host
)

// Peer is the other side of a connection, as far as it is known. It is a plain value.
type Peer struct {
	Kind     PeerKind
	Identity Identity // of a host or a person
	Serial   Serial   // of its certificate
	Print    Fingerprint
	Expired  bool   // its certificate has expired: it may renew
	Proven   bool   // it has shown the key of its certificate, or has logged in
	Login    bool   // it has no certificate, and is known by a login
	Address  string // where it connects from, for logs; may be empty
}

// Local returns whoever has reached a socket that only the owner of the data directory
// can reach.
func Local() Peer { return Peer{Kind: LocalPeer, Proven: true} }

// LoggedIn returns a person who has shown a password, or what comes of one. The records
// know nothing of it: whoever keeps logins ends them.
func LoggedIn(id Identity, address string) Peer {
	return Peer{Kind: PersonPeer, Identity: id, Address: address, Proven: true, Login: true}
}

// Claimed returns a host of a listener without TLS, which is the host that it says that it
// is: with --insecure nobody proves anything. What needs proof is refused to it. A person
// is not known in such a way: whatever is claimed of one is refused.
func Claimed(id Identity, address string) Peer {
	p := Peer{Kind: PersonPeer, Identity: id, Address: address}
	if id.IsHost() {
		p.Kind = HostPeer
	}
	return p
}

// String names the peer for logs and errors.
func (p Peer) String() string {
	name := "somebody without a certificate"
	switch p.Kind {
	case LocalPeer:
		name = "the owner of the data directory"
	case HostPeer, PersonPeer:
		name = p.Identity.String()
		if !p.Proven {
			name += " (unproven)"
		}
	}
	if p.Address != "" {
		name += " at " + p.Address
	}
	return name
}

// ObjectKind says what a call is about.
type ObjectKind uint8

// Kinds of object.
const (
	NoObject ObjectKind = iota
	VDiskObject
	HostObject
	GroupObject
	OSDObject
)

var objectWords = [...]string{"nothing", "vDisk", "host", "group", "OSD"}

// String returns the kind as a word.
func (k ObjectKind) String() string {
	if int(k) < len(objectWords) {
		return objectWords[k]
	}
	return fmt.Sprintf("object %d", uint8(k))
}

// Object is what a call is about.
type Object struct {
	Kind ObjectKind
	Name string
}

// Nothing is the object of calls that are about no one thing.
var Nothing = Object{}

// VDisk is a vDisk by its name.
func VDisk(name string) Object { return Object{VDiskObject, name} }

// OnHost is a host.
func OnHost(id uuid.UUID) Object { return Object{HostObject, id.String()} }

// Group is an Arakoon group by its name.
func Group(name string) Object { return Object{GroupObject, name} }

// OSD is a disk of the backend by its number or UUID.
func OSD(name string) Object { return Object{OSDObject, name} }

// String names the object, "" for Nothing.
func (o Object) String() string {
	if o.Kind == NoObject {
		return ""
	}
	return fmt.Sprintf("%s %q", o.Kind, short(o.Name))
}
