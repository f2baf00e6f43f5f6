//go:build ovsnext

package state

// LevelNewest is one more than that of this release: the build tag ovsnext makes a program
// that stands for the next release in tests of rolling upgrades. Nothing is gated by the
// level itself.
const LevelNewest = LevelHosts + 1
