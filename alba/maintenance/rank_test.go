package maintenance

import (
	"math/rand/v2"
	"testing"

	"openvstorage/alba/policy"
)

// Passes repair each object once, those that outlive fewer deaths before others, and no
// sooner are there more passes than kinds. The model is a sorted list of all objects.
func TestPassesGoByRank(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 1))
	for range 2000 {
		objects := make([]policy.Safety, r.IntN(40))
		kinds := make(map[policy.Safety]bool)
		for i := range objects {
			objects[i] = policy.Safety{Disks: r.IntN(4), Nodes: r.IntN(2), Zones: r.IntN(2)}
			if r.IntN(8) == 0 {
				objects[i] = policy.Lost
			}
			kinds[objects[i]] = true
		}
		var repaired []policy.Safety
		passed := 0
		p := firstPass()
		for more := true; more; more = p.advance() {
			passed++
			for _, s := range objects {
				if p.now(s) {
					repaired = append(repaired, s)
				}
			}
		}
		if len(repaired) != len(objects) {
			t.Fatalf("%d of %d objects had a turn", len(repaired), len(objects))
		}
		for i := 1; i < len(repaired); i++ {
			if sooner(repaired[i], repaired[i-1]) {
				t.Fatalf("%v came before %v", repaired[i-1], repaired[i])
			}
		}
		if passed > len(kinds)+1 {
			t.Fatalf("%d passes for %d kinds", passed, len(kinds))
		}
	}
}

// What cannot be read waits for what can be saved.
func TestLostComesLast(t *testing.T) {
	safe := policy.Safety{Disks: 3, Nodes: 2, Zones: 1}
	if sooner(policy.Lost, safe) || !sooner(safe, policy.Lost) || sooner(policy.Lost, policy.Lost) || sooner(safe, safe) {
		t.Error("what is lost does not come last")
	}
}
