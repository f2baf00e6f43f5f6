// Package cost says how often the key of a passphrase is derived. It is a package of its own
// so that tests can make that cheap, and nothing else can: only packages below trust import
// it, and trust/trusttest changes it in the process of a test alone.
package cost

// Rounds of PBKDF2 with HMAC-SHA-256. What trust.Seal writes has Rounds of them, and what
// trust.OpenAuthority reads has Min at least: a sealed key that is cheaper to try is refused,
// whoever wrote it.
var (
	Rounds uint32 = 600_000
	Min    uint32 = 100_000
)
