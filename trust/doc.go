// Package trust says who is who in a cluster, and who may do what.
//
// A cluster has one certificate authority (Authority): ECDSA P-256, made once, or the
// user's own certificate and key. Hosts get certificates when they join, with a Token
// that is used once; people and NBD clients get theirs by Registrar.Issue. A certificate
// says an Identity in its URI: the cluster, and a host with its roles or a person with a
// role. All connections between hosts speak TLS 1.3 with certificates of both sides, by
// the configurations of a Guard.
//
// The chain alone makes nobody known. The Registrar keeps a record of each host and of
// each certificate, with the SHA-256 of its bytes, in a Store that is replicated. A
// Guard asks a Cache of these records. So a certificate that was revoked, that no record
// tells of, or whose host was removed is refused, whoever signed it. The Cache lies in a
// file too: what a host has once seen revoked stays so without a quorum, after a restart,
// and if the store goes back to an older state.
//
// What a peer may do is one table (Rules): who, call, object. What no row allows is
// refused, with an error that names all three.
//
// # Time
//
// A certificate is valid from a day (Backdate) before it was signed. So clocks may
// differ by a day: the signer's may be ahead by that. Hosts' last 90 days (HostLife) and
// are renewed from day 30 on (RenewAfter), without a restart. One that has expired is good
// for its own renewal and for nothing else. Expiry is looked at when a connection is
// made, revocation at every call: a guest's connection does not end because its
// certificate does, and ends when somebody says so. Every type that asks the time has it
// from Options.
//
// # Who calls what
//
// The first host: NewAuthority or ImportAuthority, Found, then Registrar.Admit for its own
// key. Each further host: ParseToken, Token.TLS, Token.Request, and Token.Accept of the
// answer, which Registrar.Join made. All hosts: ReadMaterial, Credentials, OpenCache,
// Guard, and Renewer.
//
// # Concurrency and ownership
//
// All types are safe for concurrent use but those that are plain values. No function
// keeps a slice that it was given, and what it returns is the caller's. Whatever comes
// from a peer or a file is bounded before memory is taken for it: the limits are the
// constants of this package.
//
// The formats are in records.go (records), seal.go (the authority's key), token.go
// (tokens), exchange.go (the join's messages), cachefile.go (the cache) and material.go
// (a host's key and certificate). Certificates are X.509, requests PKCS #10, keys PKCS #8.
package trust
