package trust

import (
	"slices"
)

// Rule is one row of the table: who may make a call, on what. The columns Hosts, People,
// Local and Joiner are alternatives: one that fits is enough.
type Rule struct {
	Call   string     // service/operation
	Object ObjectKind // what it is about; a call on anything else is refused
	Hosts  Roles      // hosts with one of these roles
	Self   bool       // and for such a host, the object is itself
	People []Role     // people of these roles
	Writes bool       // not for people who are read-only
	// Filtered: it is about no one vDisk, and is yet for people who see only some: the
	// answer has no others (Peer.Sees).
	Filtered bool
	Local    bool // whoever has reached a socket in the data directory
	// Proof: not for hosts that prove nothing (--insecure).
	Proof bool
	// Joiner: somebody without a certificate. Renewer: a host whose certificate has expired.
	Joiner, Renewer bool
}

// Sets of people that rows have.
var (
	admins  = []Role{Admin}
	viewers = []Role{Admin, Viewer}
	clients = []Role{Admin, NBD}
	listers = []Role{Admin, Viewer, NBD}
	readers = []Role{Admin, Viewer, Metrics}
)

// stores is whoever reads and writes fragments.
const stores = RoleDriver | RoleProxy | RoleMaintenance

// looks is a call of people that changes nothing, changes one that does.
func looks(call string) Rule {
	return Rule{Call: call, People: viewers, Local: true}
}

func changes(call string) Rule {
	return Rule{Call: call, People: admins, Writes: true, Local: true}
}

// on gives a rule its object.
func (r Rule) on(k ObjectKind) Rule { r.Object = k; return r }

// sees makes a rule one whose answer is filtered.
func (r Rule) sees() Rule { r.Filtered = true; return r }

// between is a call of hosts alone.
func between(call string, roles Roles) Rule { return Rule{Call: call, Hosts: roles} }

// proven makes a rule one that needs proof.
func (r Rule) proven() Rule { r.Proof = true; return r }

// table is all that is allowed. What it does not name is refused.
var table = []Rule{
	// The join: the secret of a token is checked behind it.
	{Call: "join/join", Joiner: true, Hosts: AllRoles},
	{Call: "join/renew", Hosts: AllRoles, Renewer: true, Proof: true},

	// Members of groups among themselves.
	between("raft/message", RoleArakoon).on(GroupObject),
	between("raft/snapshot", RoleArakoon).on(GroupObject),
	between("raft/propose", RoleArakoon).on(GroupObject),

	// Keys of groups. Which of these a call is, KeyCall says.
	between("kv/read", AllRoles).on(GroupObject),
	between("kv/write", AllRoles).on(GroupObject),
	between("trust/read", AllRoles).on(GroupObject),
	between("trust/write", RoleArakoon).on(GroupObject).proven(),
	between("trust/key", RoleArakoon).on(GroupObject).proven(),

	// Disks, the object store, the DTL, and vDisks that another host owns.
	between("osd/read", stores|RoleASD).on(OSDObject),
	between("osd/write", stores).on(OSDObject),
	between("osd/manage", RoleMaintenance|RoleArakoon).on(OSDObject),
	between("proxy/read", RoleDriver|RoleMaintenance),
	between("proxy/write", RoleDriver|RoleMaintenance),
	between("dtl/write", RoleDriver).on(VDiskObject),
	between("dtl/read", RoleDriver).on(VDiskObject),
	between("dtl/fence", RoleDriver).on(VDiskObject),
	between("driver/request", RoleDriver).on(VDiskObject),
	between("driver/fence", RoleDriver).on(VDiskObject),

	// NBD.
	{Call: "nbd/list", People: listers, Filtered: true, Local: true},
	{Call: "nbd/open", People: clients, Object: VDiskObject, Local: true},
	{Call: "nbd/write", People: clients, Object: VDiskObject, Writes: true, Local: true},

	// Looking.
	{Call: "status", People: readers, Filtered: true, Local: true, Hosts: AllRoles},
	{Call: "metrics/get", People: readers, Local: true, Hosts: RoleDashboard},
	looks("events/follow"),

	// vDisks.
	looks("vdisk/list").sees(),
	looks("vdisk/info").on(VDiskObject),
	looks("vdisk/snapshot/list").on(VDiskObject),
	looks("vdisk/attached").sees(),
	changes("vdisk/create").on(VDiskObject),
	changes("vdisk/resize").on(VDiskObject),
	changes("vdisk/delete").on(VDiskObject),
	changes("vdisk/rename").on(VDiskObject), // asked for the old name, and for the new
	changes("vdisk/clone").on(VDiskObject),  // asked for the parent, and for the clone
	changes("vdisk/sync").on(VDiskObject),
	changes("vdisk/snapshot/create").on(VDiskObject),
	changes("vdisk/snapshot/delete").on(VDiskObject),
	changes("vdisk/rollback").on(VDiskObject),
	changes("vdisk/attach").on(VDiskObject),
	changes("vdisk/detach").on(VDiskObject),

	// The backend.
	looks("alba/status"),
	looks("alba/check"),
	looks("alba/osd/list"),
	looks("alba/osd/show").on(OSDObject),
	looks("alba/namespace/list"),
	looks("alba/namespace/show"),
	looks("alba/object/list"),
	looks("alba/object/show"),
	looks("alba/object/manifest"),
	looks("alba/preset/list"),
	changes("alba/resume-deletion"),
	changes("alba/osd/add"),
	changes("alba/osd/replace").on(OSDObject),
	changes("alba/osd/remove").on(OSDObject),
	changes("alba/preset/create"),
	changes("alba/preset/delete"),

	// Hosts, certificates, groups.
	looks("host/list"),
	looks("host/show").on(HostObject),
	changes("host/token").proven(),
	looks("host/tokens"),
	changes("host/withdraw").proven(),
	{Call: "host/drain", Object: HostObject, People: admins, Writes: true, Local: true},
	{Call: "host/maintenance", Object: HostObject, People: admins, Writes: true, Local: true},
	{Call: "host/address", Object: HostObject, People: admins, Writes: true, Local: true, Hosts: AllRoles, Self: true, Proof: true},
	changes("host/remove").on(HostObject).proven(),
	changes("host/roles").on(HostObject).proven(),
	looks("ca/list"),
	looks("ca/show"),
	changes("ca/issue").proven(),
	changes("ca/revoke").proven(),
	{Call: "ca/open", Writes: true, Local: true}, // the passphrase goes over no network
	{Call: "ca/reseal", Writes: true, Local: true},
	looks("arakoon/status"),
	looks("arakoon/get").on(GroupObject),
	looks("arakoon/exists").on(GroupObject),
	looks("arakoon/range").on(GroupObject),
	looks("arakoon/count").on(GroupObject),
	looks("arakoon/watch").on(GroupObject),
	looks("arakoon/leases").on(GroupObject),
	looks("arakoon/hash").on(GroupObject),
	looks("arakoon/levels"),
	looks("arakoon/zones"),
	looks("arakoon/loss"),
	changes("arakoon/write").on(GroupObject),
	changes("arakoon/member").on(GroupObject),
	changes("arakoon/transfer").on(GroupObject),
	changes("arakoon/raise"),
	changes("arakoon/require-zones"),
	changes("arakoon/backup"),
	{Call: "arakoon/recover", Writes: true, Local: true}, // by whoever is at the machine
}

// Rules returns the whole table, in its order.
func Rules() []Rule { return slices.Clone(table) }

var byCall = func() map[string]*Rule {
	m := make(map[string]*Rule, len(table))
	for i := range table {
		m[table[i].Call] = &table[i]
	}
	return m
}()
