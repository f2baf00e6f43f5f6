// Package cluster makes a host one of a cluster: it has the host's identity, opens the
// listener that other hosts reach, and keeps certificate, records and addresses good.
//
// The first host of a cluster is a machine with groups of its own. Lead makes its
// authority at the first start with an address to listen on, admits the host itself, and
// serves joins. Every other host begins as an empty data directory: Resume joins with a
// token, and later starts as what it has become. Both return a Host.
//
// A host with the role arakoon changes records, and signs certificates once it was given the
// passphrase of the authority. One that does not sign passes a join on to one that does.
//
// # Services
//
//	ovs-join    a token is exchanged for a certificate; a certificate is renewed
//	ovs-driver  a host announces where it is, and reads records of the config group
//
// Packages above add theirs by Options.Services, and have Host.Admit and Host.Allow say
// who may use them.
//
// # UUIDs
//
// The UUID of a host is that of its data directory. The UUID of a cluster is that of its
// first host's, whose groups carry it in their logs already: so nothing is migrated.
//
// # Files
//
// All are in DIR/trust, and their owner's alone: host.pem (the key and certificate of the
// host), records (what it knows of the records of trust), book (where the hosts are), and
// passphrase: on the first host, if the user gave none, and on others that keep it.
//
// All exported types are safe for concurrent use.
package cluster
