package trusttest

import (
	"testing"

	"openvstorage/trust/internal/cost"
)

// cheapRounds is what a passphrase costs in tests that are about something else.
const cheapRounds = 10

// CheapSeals makes passphrases cost next to nothing from now on in this process: for the
// TestMain of a package whose tests make many clusters. In any other process than a test's
// it panics.
func CheapSeals() {
	if !testing.Testing() {
		panic("trusttest.CheapSeals outside of a test")
	}
	cost.Rounds, cost.Min = cheapRounds, cheapRounds
}
