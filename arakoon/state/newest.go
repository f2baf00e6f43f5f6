//go:build !ovsnext

package state

// LevelNewest is the newest level that this release knows: a group can be raised to it, and
// a state of a higher one is refused.
const LevelNewest = LevelHosts
