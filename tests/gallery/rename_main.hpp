// Included before a gallery program: its main() keeps the rules of a main, such as its return value when it ends without one,
// but is called gallery_main by the linker. `-Dmain=gallery_main` would make it an int function that returns nothing.
#pragma once

int main() __asm__("gallery_main");
