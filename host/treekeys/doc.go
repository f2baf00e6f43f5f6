// Package treekeys keeps the tree of a mount on an Arakoon group: Keys is the
// few methods that package fusefs/filetree asks of a replicated store, over a
// node. It is where the two meet; neither knows the other.
package treekeys
