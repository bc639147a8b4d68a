// Reads a guest configuration as xl(1) does, xl.cfg(5) being the grammar: text to settings with places
// (xl-cfg-parser.ts), settings to a typed view of what grantio uses (guest-config.ts).

import { type Finding, Findings, hasErrors, sortFindings } from './finding.ts';
import { type GuestConfig, viewGuestConfig } from './guest-config.ts';
import { parseSettings } from './xl-cfg-parser.ts';

/** What reading a guest configuration gave. */
interface XlConfigReading {
  /** Undefined if one of the findings is an error. */
  readonly config: GuestConfig | undefined;
  /** In the order of their places. */
  readonly findings: readonly Finding[];
}

/**
 * Reads the text of a guest configuration. Never throws: whatever the text is, what is wrong with it is in
 * the findings.
 *
 * @param text the file's content
 * @param file the file's name, for the findings
 */
export function readXlConfig(text: string, file: string): XlConfigReading {
  const { config, findings } = surveyXlConfig(text, file);
  return { config: hasErrors(findings) ? undefined : config, findings };
}

/** As readXlConfig, but with what could be understood of a configuration that has errors: for the linter. */
export function surveyXlConfig(
  text: string,
  file: string,
): { readonly config: GuestConfig; readonly findings: readonly Finding[] } {
  const findings = new Findings(file);
  const config = viewGuestConfig(parseSettings(text, findings), findings);
  return { config, findings: sortFindings(findings.list) };
}
