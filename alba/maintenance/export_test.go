package maintenance

import "context"

// RememberedMax bounds Remembered: what waits for a repair has a limit of its own.
const RememberedMax = fruitlessMax

// Remembered is how many listings are remembered.
func (m *Maintenance) Remembered() int { return len(m.repairs.fruitless) }

// Refresh asks all disks how full they are, as every tick does.
func (m *Maintenance) Refresh(ctx context.Context) { m.disks.refresh(ctx) }
