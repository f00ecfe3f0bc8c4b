#ifdef _WIN32

#include "system.h"

#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>

#include <fcntl.h>
#include <io.h>
#include <psapi.h>

namespace reel::examples {
namespace {

HANDLE handle_of(std::FILE* file) {
  return reinterpret_cast<HANDLE>(_get_osfhandle(_fileno(file)));
}

}  // namespace

bool is_terminal(std::FILE* file) {
  DWORD mode = 0;  // _isatty is also true of the null device
  return GetConsoleMode(handle_of(file), &mode) != 0;
}

bool can_redraw(std::FILE* file) {
  DWORD mode = 0;
  return GetConsoleMode(handle_of(file), &mode) != 0 &&
         SetConsoleMode(handle_of(file), mode | ENABLE_VIRTUAL_TERMINAL_PROCESSING) != 0;
}

int columns(std::FILE* file) {
  CONSOLE_SCREEN_BUFFER_INFO info;
  if (!GetConsoleScreenBufferInfo(handle_of(file), &info)) return 80;
  return info.srWindow.Right - info.srWindow.Left + 1;
}

std::string processor_name() {
  char name[256];
  DWORD length = sizeof name;
  const bool known =
      RegGetValueA(HKEY_LOCAL_MACHINE, "HARDWARE\\DESCRIPTION\\System\\CentralProcessor\\0",
                   "ProcessorNameString", RRF_RT_REG_SZ, nullptr, name, &length) == ERROR_SUCCESS;
  return known ? name : "unknown";
}

MemoryUse memory_use() {
  PROCESS_MEMORY_COUNTERS used{};
  if (!K32GetProcessMemoryInfo(GetCurrentProcess(), &used, sizeof used)) return {};
  return {static_cast<double>(used.WorkingSetSize) / 1e6,
          static_cast<double>(used.PeakWorkingSetSize) / 1e6};
}

void begin_program() {
  _setmode(_fileno(stdin), _O_BINARY);
  _setmode(_fileno(stdout), _O_BINARY);
  SetConsoleOutputCP(CP_UTF8);
}

void ignore_closed_pipes() {}  // there is no signal

}  // namespace reel::examples

#endif
