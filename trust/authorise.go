package trust

import (
	"bytes"
	"slices"
)

func refuse(p Peer, call string, on Object, why string, err error) error {
	return &RefusedError{Peer: p.String(), Call: short(call), Object: on.String(), Why: why, Err: err}
}

// Decide returns nil if the table allows a peer a call on an object, and otherwise a
// RefusedError. It looks at nothing but its arguments: Guard.Allow asks the records too.
func Decide(p Peer, call string, on Object) error {
	r := byCall[call]
	if r == nil {
		return refuse(p, call, on, "no row of the table names this call", nil)
	}
	if on.Kind != r.Object {
		return refuse(p, call, on, "the call is about "+r.Object.String()+", not "+on.Kind.String(), nil)
	}
	if why := r.refuses(p, on); why != "" {
		return refuse(p, call, on, why, nil)
	}
	return nil
}

// refuses says why a row does not allow a peer its call, "" if it does.
func (r *Rule) refuses(p Peer, on Object) string {
	if r.Proof && !p.Proven {
		return "the call needs a certificate, and the connection has none (--insecure)"
	}
	if p.Expired && !r.Renewer {
		return "its certificate has expired: it may only renew"
	}
	switch p.Kind {
	case Nobody:
		if !r.Joiner {
			return "the call needs a certificate"
		}
	case LocalPeer:
		if !r.Local {
			return "it is a call of hosts, not of people"
		}
	case HostPeer:
		return r.refusesHost(p, on)
	case PersonPeer:
		return r.refusesPerson(p, on)
	default:
		return "nobody knows what it is"
	}
	return ""
}

func (r *Rule) refusesHost(p Peer, on Object) string {
	switch {
	case r.Hosts == 0:
		return "it is a call of people, not of hosts"
	case r.Hosts&p.Identity.Roles == 0:
		return "it needs one of the roles " + r.Hosts.String() + ", and the host has " + p.Identity.Roles.String()
	case r.Self && on.Name != p.Identity.Host.String():
		return "a host may do that to itself alone"
	}
	return ""
}

func (r *Rule) refusesPerson(p Peer, on Object) string {
	id := p.Identity
	switch {
	case !p.Proven:
		return "a person needs a certificate or a login (--insecure is for hosts)"
	case len(r.People) == 0:
		return "it is not a call of people"
	case !slices.Contains(r.People, id.Role):
		return "it is not for the role " + id.Role.String()
	case r.Writes && id.ReadOnly:
		return "the certificate is for reading only"
	case id.VDisks == "" || r.Filtered:
	case on.Kind != VDiskObject:
		return "the certificate is for some vDisks only (" + id.VDisks + "), and this is about more"
	case !id.Covers(on.Name):
		return "the certificate is for other vDisks (" + id.VDisks + ")"
	}
	return ""
}

// Sees reports whether a list that is made for a peer may have a vDisk of that name.
// Hosts and whoever is local see all.
func (p Peer) Sees(vdisk string) bool {
	return p.Kind == LocalPeer || p.Kind == HostPeer || p.Kind == PersonPeer && p.Identity.Covers(vdisk)
}

// KeyCall returns which call of the table a read or a change of keys of a group is. The
// keys are those from from on, up to to and without it; a nil to is the end of all keys.
// For one key, to is the key with a zero byte behind it. The records of this package are
// written by hosts that hold members, whoever else may write to the group, and the
// authority's sealed key is read by nobody else.
func KeyCall(write bool, from, to []byte) string {
	meets := func(low, high []byte) bool {
		return (to == nil || bytes.Compare(low, to) < 0) && bytes.Compare(from, high) < 0
	}
	// '0' is the byte behind '/'.
	switch trust := meets([]byte(Prefix), []byte("trust0")); {
	case !trust && !write:
		return "kv/read"
	case !trust:
		return "kv/write"
	case write:
		return "trust/write"
	case meets([]byte(authorityKey), []byte(authorityKey+"\x00")):
		return "trust/key"
	}
	return "trust/read"
}
